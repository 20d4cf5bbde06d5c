-- Who may do what: nothing is anybody's but what stands here.
--
-- `create or replace` keeps old grants, so all that veil's roles have is taken back first. Nobody sees that: it is
-- one transaction.

do $$
declare
  roles text := 'veil_etl, veil_analyst, veil_revealer, veil_operator, veil_auditor, veil_policy, veil_approver, veil_breakglass, veil_eraser';
begin
  execute format('revoke all on schema etl, pii_vault from public, %s', roles);
  execute format('revoke all on all tables in schema etl, pii_vault from public, %s', roles);
  execute format('revoke all on all routines in schema etl, pii_vault from public, %s', roles);
  execute format(
    'revoke all on public.user_logins, public.user_logins_shared_tokens,
       public.user_logins_per_token_and_day from %s', roles
  );
end
$$;

grant usage on schema etl to
  veil_etl, veil_analyst, veil_revealer, veil_operator, veil_auditor, veil_policy, veil_approver,
  veil_breakglass, veil_eraser;
grant execute on function etl.schema_version, etl.schema_hash to
  veil_etl, veil_analyst, veil_revealer, veil_operator, veil_auditor, veil_policy, veil_approver,
  veil_breakglass, veil_eraser;

-- Everybody who puts something on record, or looks after the record, moves its chain on.
grant usage on schema pii_vault to
  veil_etl, veil_revealer, veil_operator, veil_auditor, veil_policy, veil_approver, veil_breakglass,
  veil_eraser;
grant execute on function pii_vault.chain_waiting to
  veil_etl, veil_revealer, veil_operator, veil_auditor, veil_policy, veil_approver, veil_breakglass,
  veil_eraser;
grant execute on procedure pii_vault.chain_audit to
  veil_etl, veil_revealer, veil_operator, veil_auditor, veil_policy, veil_approver, veil_breakglass,
  veil_eraser;

grant execute on function etl.load, etl.housekeep to veil_etl;

grant select on
  public.user_logins, public.user_logins_shared_tokens, public.user_logins_per_token_and_day
  to veil_analyst;
grant execute on function etl.app_version_text to veil_analyst;

grant execute on function
  pii_vault.request_reveal(text[], text), pii_vault.request_reveal(text[], text, text)
  to veil_revealer;
grant execute on function pii_vault.break_glass to veil_breakglass;
grant execute on function pii_vault.fetch_reveal, pii_vault.fetch_in_periods to
  veil_revealer, veil_breakglass;
grant execute on function pii_vault.request_state to veil_revealer, veil_breakglass, veil_operator;

grant select (message_id, sent_at, reason, state, quarantined_at, changed_at, changed_by)
  on etl.quarantine to veil_operator;
grant execute on function etl.request_bodies, etl.fetch_bodies, etl.replay, etl.discard
  to veil_operator;
grant execute on function etl.check_invariant to veil_operator, veil_auditor;

grant execute on function pii_vault.decide, pii_vault.review to veil_approver;
grant execute on function
  pii_vault.waiting_requests, pii_vault.unreviewed_requests, pii_vault.recent_alarms
  to veil_approver, veil_auditor;

grant select on
  pii_vault.audit, pii_vault.audit_waiting, pii_vault.audit_chain, pii_vault.audit_head,
  pii_vault.verdicts, pii_vault.reviews, pii_vault.tombstones, pii_vault.holds
  to veil_auditor;
grant select on pii_vault.policies to veil_policy, veil_approver, veil_auditor;
grant select on pii_vault.canaries to veil_policy;

grant execute on function
  pii_vault.set_policy, pii_vault.plant_canary, pii_vault.remove_canary, pii_vault.lift_tombstones,
  pii_vault.add_hold, pii_vault.is_hold_empty, pii_vault.release_hold
  to veil_policy;
grant execute on function pii_vault.list_holds to veil_policy, veil_eraser, veil_auditor;

grant execute on function
  pii_vault.plan_forget_user, pii_vault.plan_forget_tokens, pii_vault.forget_user,
  pii_vault.forget_tokens, pii_vault.plan_expire, pii_vault.plan_expire_period,
  pii_vault.expire_period, pii_vault.expire_bodies
  to veil_eraser;
grant execute on function pii_vault.place_of to veil_eraser, veil_policy;
