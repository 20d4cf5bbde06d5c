-- The audit: how an entry comes to be, and that none is ever changed. The chain over it: chain.sql.

-- A role of a cluster may have a name in another encoding than this database's. Such bytes would be refused where
-- they are hashed, and keep everything behind them off the chain.
create or replace function pii_vault.as_utf8(given text) returns text
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform convert_to(given, 'UTF8');
  return given;
exception when character_not_in_repertoire or untranslatable_character then
  return 'not UTF-8: ' || md5(given);
end
$$;

-- Keeps to UTF-8.
create or replace function pii_vault.clean_entry() returns trigger
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  perform convert_to(concat(new.login, new.role, new.reason, new.details), 'UTF8');
  return new;
exception when character_not_in_repertoire or untranslatable_character then
  new.login := pii_vault.as_utf8(new.login);
  new.role := pii_vault.as_utf8(new.role);
  new.reason := pii_vault.as_utf8(new.reason);
  if pii_vault.as_utf8(new.details::text) is distinct from new.details::text then
    new.details := json_build_object('withheld', 'not UTF-8');
  end if;
  return new;
end
$$;

create or replace function pii_vault.await_chaining() returns trigger
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  -- In conflict after a restore of the data alone.
  insert into pii_vault.audit_waiting (entry) values (new.id) on conflict do nothing;
  return null;
end
$$;

-- One more entry, of the caller's. What it was done to stands in `details`, never an original. Returns its id.
create or replace function pii_vault.record(
  action text, request uuid, tokens text[], message_ids text[], items integer, reason text, details json
) returns bigint
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  entry bigint;
begin
  insert into pii_vault.audit (
    login_oid, role, action, request, tokens, message_ids, items, reason, details
  ) values (
    pii_vault.caller(), pii_vault.acting_role(), record.action, record.request, record.tokens, record.message_ids,
    record.items, nullif(btrim(record.reason), ''), record.details
  )
  returning id into entry;
  return entry;
end
$$;

-- "at time zone 'UTC'" would be what this session's own time zone calls so (`set timezone = 'UTC-167'`, since
-- PostgreSQL 18). An offset is nobody's to redefine.
create or replace function pii_vault.utc_text(at timestamptz) returns text
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select to_char(at at time zone interval '0', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$$;
