-- Who governs recovery: the roles, and what each entry of the audit says from here on.

-- As in sql/001: roles are the cluster's, and other databases may be making them now.
do $$
declare
  wanted text;
begin
  foreach wanted in array array[
    'veil_policy', 'veil_approver', 'veil_breakglass', 'veil_eraser'
  ] loop
    for attempt in 1..50 loop
      begin
        if not exists (select from pg_catalog.pg_roles where rolname = wanted) then
          execute format('create role %I nologin', wanted);
        end if;
        exit;
      exception
        when duplicate_object or unique_violation then
          exit;
        when internal_error then
          if attempt = 50 then raise; end if;
          perform pg_catalog.pg_sleep(random() * 0.05);
      end;
    end loop;
  end loop;
end
$$;

set local role veil_owner;

grant usage on schema etl to veil_policy, veil_approver, veil_breakglass, veil_eraser;
grant usage on schema pii_vault to veil_policy, veil_approver, veil_breakglass, veil_eraser;
grant execute on function etl.schema_version()
  to veil_policy, veil_approver, veil_breakglass, veil_eraser;

-- As what this session acts: the role that `set role` has chosen, or all of veil's that its login has.
create function pii_vault.acting_role() returns text
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    nullif(current_setting('role'), 'none'),
    (
      select case when r.rolsuper then 'superuser' else (
        select string_agg(v.rolname::text, ',' order by v.rolname)
        from pg_roles v
        where v.rolname = any ('{veil_owner,veil_etl,veil_analyst,veil_revealer,veil_operator,veil_auditor,veil_policy,veil_approver,veil_breakglass,veil_eraser}'::name[])
          and pg_has_role(r.oid, v.oid, 'usage')
      ) end
      from pg_roles r where r.rolname = session_user
    )
  )
$$;

revoke all on function pii_vault.acting_role() from public;

-- Null in the entries of before; the address is null for a Unix socket. `details` is json and not jsonb: it is
-- hashed as it was written.
alter table pii_vault.audit
  add column role text,
  add column address text,
  add column details json;
alter table pii_vault.audit
  alter column role set default pii_vault.acting_role(),
  alter column address set default host(inet_client_addr()),
  drop constraint audit_action,
  add constraint audit_action check (action ~ '^[a-z]+\.[a-z]+$');

-- The login of this session, by the id that no renaming changes. A superuser's `set session authorization`
-- changes session_user and not who connected: whoever is two people at once is neither.
create function pii_vault.caller() returns oid
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  named oid := (select r.oid from pg_roles r where r.rolname = session_user);
begin
  if named is distinct from (
    select a.usesysid from pg_stat_get_activity(pg_backend_pid()) a
  ) then
    raise exception using
      errcode = 'VL034',
      message = 'this session goes by another login than the one that it connected as',
      hint = 'connect as the login itself; set session authorization does not do here';
  end if;
  return named;
end
$$;

-- One more entry. What it was done to stands in `details`, never an original.
create function pii_vault.record(
  action text, request uuid, tokens text[], items integer, reason text, details json
) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into pii_vault.audit (login_oid, action, request, tokens, items, reason, details)
  values (
    pii_vault.caller(), record.action, record.request, record.tokens, record.items,
    nullif(btrim(record.reason), ''), record.details
  );
end
$$;

-- Where a reason is what the whole record is for.
create function pii_vault.require_reason(reason text) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform pii_vault.require_reason_length(reason);
  if coalesce(btrim(reason), '') = '' then
    raise exception using
      errcode = 'VL030', message = 'this needs a reason', hint = 'say why: it goes on record';
  end if;
end
$$;

revoke all on function pii_vault.caller() from public;
revoke all on function pii_vault.record(text, uuid, text[], integer, text, json) from public;
revoke all on function pii_vault.require_reason(text) from public;
