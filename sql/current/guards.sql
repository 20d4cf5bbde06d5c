-- What entry points check before anything else, and who calls them.
--
-- veil's SQLSTATEs, by the names that src/postgres/sqlstates.ts gives them:
--
--     VL001 NO_SUCH_REQUEST     no such request of this login, or not for this message or body
--     VL002 SAME_TRANSACTION    the request was recorded by this very transaction
--     VL003 REQUEST_EXPIRED     the request, or its approval, is too old
--     VL004 NOT_FLUSHED         the request is not known to be on disk yet: try again
--     VL005 ON_STANDBY          a standby serves no request
--     VL006 INVALID_ARGUMENT    an argument is out of its bounds
--     VL010 WRONG_TOKEN_KEY     another token key is registered for this generation
--     VL011 UNKNOWN_GENERATION  no token key is registered for this generation
--     VL012 DATA_KEY_CONFLICT   another data key is registered under this id
--     VL013 ORIGINALS_LACKING   a row has a token without an original: send it, too
--     VL014 MALFORMED_LOAD      an array of a load is null, no plain list, or of another length
--     VL015 WRONG_ISOLATION     this needs READ COMMITTED
--     VL016 ROWS_LOST           public.user_logins took fewer rows or changes than it was given
--     VL020 APPEND_ONLY         a trigger refuses the change
--     VL030 REASON_REQUIRED     this needs a reason
--     VL031 APPROVAL_PENDING    the request waits for approval
--     VL032 APPROVAL_DENIED     the request was denied
--     VL033 PURPOSE_REFUSED     the policy does not allow the purpose
--     VL034 BORROWED_LOGIN      the session goes by another login than it connected as
--     VL035 OVER_BUDGET         the request would exceed the budget of its login
--     VL036 OWN_REQUEST         nobody decides on a request of his own
--     VL037 NOTHING_TO_DECIDE   no verdict, or no review, is waited for
--     VL040 UNDER_HOLD          a legal hold stands against it
--     VL041 VALUE_IN_USE        a canary's value is in use, or was
--     VL042 NOT_FOUND           there is no such request, hold or canary
--     VL043 NOT_CHAINABLE       the audit is chained by a statement of its own, and only where it is whole
--     VL090 TABLE_IN_THE_WAY    migrate: a table of veil's name was there before veil
--     VL091 MADE_BY_OLD_VEIL    the database is of a veil from before the steps (said by `veil migrate` itself)
--
-- Every definer function of veil's has the search path `pg_catalog, pg_temp`, in this order. With an empty one, its
-- caller's pg_temp would be searched first for type names, and a domain named uuid there would run code as the owner.

create or replace function etl.schema_version() returns integer
  language sql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(max(step), 0) from etl.migrations
$$;

-- The hash of the texts that the functions here are made of; `veil migrate` computes and records it.
create or replace function etl.schema_hash() returns text
  language sql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
  select hash from etl.migrations order by id desc limit 1
$$;

-- In a transaction's old snapshot, a policy that has been tightened is as it was, and what has been erased is
-- there. So every entry point asks before its first read. `what` begins the sentence of the refusal.
create or replace function pii_vault.require_read_committed(what text) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using
      errcode = 'VL015', message = what || ' needs the isolation level read committed',
      hint = 'begin isolation level read committed';
  end if;
end
$$;

-- What a caller has been told is done must survive a crash, whatever this session was set to.
create or replace function pii_vault.commit_to_disk() returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('synchronous_commit') = 'off' then
    perform set_config('synchronous_commit', 'on', true);
  end if;
end
$$;

-- A time-out of this transaction that is not longer than so, whatever its session has set.
create or replace function pii_vault.at_most(setting text, most text) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  -- 0 is for ever.
  if current_setting(setting) = '0' or current_setting(setting)::interval > most::interval then
    perform set_config(setting, most, true);
  end if;
end
$$;

-- The login of this session, by the id that no renaming changes. A superuser's `set session authorization`
-- changes session_user and not who connected: whoever is two people at once is neither.
create or replace function pii_vault.caller() returns oid
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

-- As what this session acts: the role that `set role` has chosen, or all of veil's that its login has.
create or replace function pii_vault.acting_role() returns text
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

create or replace function pii_vault.require_reason_length(reason text) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if char_length(reason) > 1000 then
    raise exception using
      errcode = 'VL006', message = 'a reason has up to 1000 characters';
  end if;
end
$$;

-- Where a reason is what the whole record is for.
create or replace function pii_vault.require_reason(reason text) returns void
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

create or replace function pii_vault.require_tokens(tokens text[], most integer) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(array_ndims(tokens), 0) <> 1 or cardinality(tokens) > most then
    raise exception using errcode = 'VL006', message = format('expected 1 to %s tokens', most);
  end if;
  if exists (
    select from unnest(tokens) t (token)
    where token is null or char_length(token) > 64
      -- In two parts, because a counted repetition costs four times as much.
      or token !~ '^(ip|dev)(0|[1-9][0-9]*)_[a-z2-7]+[aeimquy4]$'
      or substr(token, char_length(token) - 26, 1) <> '_'
  ) then
    raise exception using errcode = 'VL006', message = 'one of the tokens is not written as a token is';
  end if;
end
$$;

create or replace function pii_vault.require_message_ids(message_ids text[]) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(array_ndims(message_ids), 0) <> 1 or cardinality(message_ids) > 10000 then
    raise exception using errcode = 'VL006', message = 'expected 1 to 10000 message ids';
  end if;
end
$$;

create or replace function pii_vault.require_user_id(user_id text) returns void
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if (char_length(user_id) between 1 and 128) is not true then
    raise exception using errcode = 'VL006', message = 'expected a user id of 1 to 128 characters';
  end if;
end
$$;

-- Of every append-only table, for its owner, too.
create or replace function pii_vault.refuse_change() returns trigger
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = 'VL020',
    message = format('%I.%I is append-only: %s is refused', tg_table_schema, tg_table_name, tg_op);
end
$$;
