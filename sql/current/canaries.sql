-- Decoy originals. No login uses them, so whoever asks for one has its token from a dump, a guess, or a list of
-- everything. Asking is answered like an unknown token; the alarm is part of no transaction of the asker's.

-- Sealed by whoever plants it, exactly as the ETL seals.
create or replace function pii_vault.plant_canary(
  token text,
  sealed bytea,
  generation integer,
  key_check bytea,
  data_key uuid,
  wrapped bytea,
  recipients text[],
  proof bytea,
  reason text
) returns void
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  perform pii_vault.require_reason_length(plant_canary.reason);
  perform pii_vault.require_read_committed('this');
  perform pii_vault.at_most('lock_timeout', '20s');
  perform pii_vault.at_most('idle_in_transaction_session_timeout', '20s');
  lock table pii_vault.erasure_gate in row share mode;
  -- Only a load registers a key: whoever plants first must not be who decides on it.
  if not exists (
    select from pii_vault.key_generations g where g.generation = plant_canary.generation
  ) then
    raise exception using
      errcode = 'VL011',
      message = format('token key generation %s is not registered in this database', plant_canary.generation),
      hint = 'run `veil etl` first: the first load registers its key';
  end if;
  perform etl.check_key(plant_canary.generation, plant_canary.key_check, false);
  if exists (select from pii_vault.occurrences u where u.token = plant_canary.token)
    or exists (select from pii_vault.originals o where o.token = plant_canary.token)
    or exists (select from pii_vault.tombstones t where t.token = plant_canary.token)
  then
    raise exception using
      errcode = 'VL041',
      message = 'this value is in use, or was: a canary is a value that no login has',
      hint = 'choose another one, of an address range or a form that your users cannot have';
  end if;
  perform etl.register_data_key(
    plant_canary.data_key, plant_canary.generation, plant_canary.wrapped,
    plant_canary.recipients, plant_canary.proof
  );
  insert into pii_vault.originals (token, period, data_key, sealed)
  values (
    plant_canary.token, etl.period_of(etl.utc_day(clock_timestamp())), plant_canary.data_key,
    plant_canary.sealed
  );
  insert into pii_vault.canaries (token) values (plant_canary.token);
  perform pii_vault.record(
    'canary.added', null, array[plant_canary.token], '{}', 1, plant_canary.reason, null
  );
end
$$;

create or replace function pii_vault.remove_canary(token text, reason text) returns void
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  perform pii_vault.require_reason_length(remove_canary.reason);
  perform pii_vault.close_gate();
  delete from pii_vault.canaries c where c.token = remove_canary.token;
  if not found then
    raise exception using errcode = 'VL042', message = 'this token is no canary';
  end if;
  -- A login has it after all: then the original is that login's now.
  delete from pii_vault.originals o
  where o.token = remove_canary.token
    and not exists (select from pii_vault.occurrences u where u.token = remove_canary.token);
  perform pii_vault.record(
    'canary.removed', null, array[remove_canary.token], '{}', 1, remove_canary.reason, null
  );
end
$$;

-- What follows from entries once they are committed and chained, so that no caller can take it back. Whether it has put
-- anything more on record. What fails here keeps these entries off the chain.
create or replace function pii_vault.on_chained(entries bigint[]) returns boolean
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  touched record;
  alarm bigint;
  is_alarmed boolean := false;
begin
  for touched in
    select a.id, a.login, a.login_oid, a.role, a.address, a.request, array_agg(c.token) as tokens
    from pii_vault.audit a
    cross join lateral unnest(a.tokens) t (token)
    join pii_vault.canaries c on c.token = t.token collate "C"
    where a.id = any (entries) and a.action = 'reveal.request'
    group by a.id
    order by a.id
  loop
    insert into pii_vault.audit (
      login, login_oid, role, address, action, request, tokens, items, details
    ) values (
      touched.login, touched.login_oid, touched.role, touched.address, 'canary.alarm',
      touched.request, touched.tokens, cardinality(touched.tokens),
      json_build_object('entry', touched.id)
    )
    returning id into alarm;
    is_alarmed := true;
    raise log 'veil: request % of % touched a canary: audit entry %',
      touched.request, touched.login, alarm;
  end loop;
  return is_alarmed;
end
$$;

-- Of the last day, the oldest first: for whoever follows, and looks here when the chain has grown. There is no
-- notification of an alarm, since any login could listen to it, and learn what is a canary.
create or replace function pii_vault.recent_alarms() returns table (
  entry bigint, login text, recorded_at timestamptz, request uuid, items integer
)
  language sql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
  select a.id, a.login, a.at, a.request, a.items
  from pii_vault.audit a
  where a.action = 'canary.alarm' and a.at > clock_timestamp() - interval '24 hours'
  order by a.at, a.id
$$;

