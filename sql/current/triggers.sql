-- The triggers: what is append-only, how an entry of the audit comes to be, and what its chain may not do.
--
-- Written only where this file, or that of the views, has changed: a trigger is made under a lock that waits for
-- whoever has written to its table, and anybody's open request would hold up every other change.

-- In the order in which requests and erasures lock them, which then wait for this and do not meet it half-way.
lock table
  pii_vault.requests, pii_vault.verdicts, pii_vault.reviews, pii_vault.holds, pii_vault.tombstones,
  pii_vault.audit_chain, pii_vault.audit, pii_vault.audit_head
  in share row exclusive mode;

create or replace trigger audit_append_only
  before update or delete or truncate on pii_vault.audit
  for each statement execute function pii_vault.refuse_change();
create or replace trigger audit_is_utf8
  before insert on pii_vault.audit
  for each row execute function pii_vault.clean_entry();
create or replace trigger audit_awaits_chaining
  after insert on pii_vault.audit
  for each row execute function pii_vault.await_chaining();

create or replace trigger audit_chain_append_only
  before update or delete or truncate on pii_vault.audit_chain
  for each statement execute function pii_vault.refuse_change();
create or replace trigger audit_head_moves_on
  before update on pii_vault.audit_head
  for each row execute function pii_vault.refuse_step_back();
create or replace trigger audit_head_stays
  before delete or truncate on pii_vault.audit_head
  for each statement execute function pii_vault.refuse_change();

create or replace trigger requests_append_only
  before update or delete or truncate on pii_vault.requests
  for each statement execute function pii_vault.refuse_change();

create or replace trigger verdicts_append_only
  before update or delete or truncate on pii_vault.verdicts
  for each statement execute function pii_vault.refuse_change();
create or replace trigger reviews_append_only
  before update or delete or truncate on pii_vault.reviews
  for each statement execute function pii_vault.refuse_change();

create or replace trigger tombstones_final
  before update or truncate on pii_vault.tombstones
  for each statement execute function pii_vault.refuse_change();

create or replace trigger holds_kept
  before delete or truncate on pii_vault.holds
  for each statement execute function pii_vault.refuse_change();
