-- Retention: originals that no login has had for so long, and bodies that nobody replayed or discarded in that time.

-- Of these tokens, those that a login has had since that day. One without a date counts as new.
create or replace function pii_vault.used_since(day date, tokens text[]) returns text[]
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(t.token), '{}')
  from unnest(tokens) t (token)
  where exists (
    select from pii_vault.occurrences o
    where o.token = t.token and (o.create_date < day) is not true
    offset 0
  )
$$;

-- The next tokens, in their order, that no login has had since that day; those that no row has, by when they were
-- sealed. Few enough of them that their rows are looked at again in a moment. `upto` is null where there are no
-- more.
create or replace function pii_vault.expired_after(
  day date, after text, out tokens text[], out looked integer, out upto text
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  with page as materialized (
    select o.token collate "default" as token, o.sealed_at,
      row_number() over (order by o.token) as position
    from pii_vault.originals o
    where o.token > coalesce(after, '') collate "C"
      -- Decoys are for good.
      and not exists (select from pii_vault.canaries c where c.token = o.token)
    order by o.token
    limit 5000
  ),
  old as materialized (
    select p.token, p.position, p.sealed_at, (
      select count(*) from pii_vault.occurrences o where o.token = p.token
    ) as logins
    from page p
    where p.token not in (
      select unnest(pii_vault.used_since(day, array(select g.token from page g)))
    )
  ),
  gone as (
    select t.token, t.position, coalesce(
      sum(t.logins) over (order by t.position rows between unbounded preceding and 1 preceding), 0
    ) as rows_before
    from old t
    where t.logins > 0 or t.sealed_at < (day::timestamp at time zone interval '0')
  ),
  cut as (
    -- The place before the first one whose predecessors have rows enough; null: all of the page.
    select min(g.position) filter (where g.rows_before > 20000) - 1 as at from gone g
  )
  select
    array(
      select g.token from gone g where (g.position > cut.at) is not true order by g.position
    ),
    coalesce(cut.at, (select count(*) from page))::integer,
    (select p.token from page p where p.position = coalesce(cut.at, 5000))
  from cut
$$;

create or replace function pii_vault.day_before(older_than integer) returns date
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if (older_than between 1 and 36500) is not true then
    raise exception using errcode = 'VL006', message = 'expected 1 to 36500 days';
  end if;
  return (clock_timestamp() at time zone interval '0')::date - older_than;
end
$$;

-- One step of an expiry, and nothing of it is done: which tokens would go. Begins at the first one if `after` is
-- null, and is over when `upto` is.
create or replace function pii_vault.plan_expire(older_than integer, after text)
  returns table (upto text, looked integer, erased_ip integer, erased_device_id integer, held integer)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  page record;
  kept text[];
begin
  perform set_config('enable_seqscan', 'off', true);
  select * into page
  from pii_vault.expired_after(pii_vault.day_before(plan_expire.older_than), plan_expire.after);
  kept := pii_vault.held_among(page.tokens);
  upto := page.upto;
  looked := page.looked;
  held := cardinality(kept);
  select
    count(*) filter (where starts_with(t.token, 'ip')),
    count(*) filter (where not starts_with(t.token, 'ip'))
  into erased_ip, erased_device_id
  from unnest(page.tokens) t (token)
  where (t.token in (select unnest(kept))) is not true;
  return next;
end
$$;

-- One step of an expiry: a transaction of its own, so that loads wait for a moment each time and not for all of
-- it. What is held is left alone. `run` is the same in each step's receipt.
create or replace function pii_vault.expire(older_than integer, after text, run uuid, reason text)
  returns table (
    entry bigint, upto text, looked integer, erased_ip integer, erased_device_id integer, held integer
  )
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  day date := pii_vault.day_before(expire.older_than);
  erasure uuid := gen_random_uuid();
  page record;
  kept text[] := '{}';
  gone text[];
  originals integer;
begin
  perform pii_vault.require_reason(expire.reason);
  if expire.run is null then
    raise exception using errcode = 'VL006', message = 'expected the id of the run';
  end if;
  perform set_config('enable_seqscan', 'off', true);
  select * into page from pii_vault.expired_after(day, expire.after);
  upto := page.upto;
  looked := page.looked;
  erased_ip := 0;
  erased_device_id := 0;
  held := 0;
  if cardinality(page.tokens) > 0 then
    perform pii_vault.close_gate();
    kept := pii_vault.held_among(page.tokens);
    held := cardinality(kept);
    -- Looked at again: loads went on until the gate was closed.
    gone := array(
      select o.token from pii_vault.originals o
      where o.token in (
        select unnest(page.tokens)
        except select unnest(kept)
        except select unnest(pii_vault.used_since(day, page.tokens))
      )
      order by o.token
    );
    if cardinality(gone) > 0 then
      originals := pii_vault.bury(gone, 'expired', erasure);
      select
        count(*) filter (where starts_with(g.token, 'ip')),
        count(*) filter (where not starts_with(g.token, 'ip'))
      into erased_ip, erased_device_id
      from unnest(gone) g (token);
      entry := pii_vault.record(
        'erasure.expire', null, '{}', '{}', cardinality(gone), expire.reason,
        json_build_object(
          'erasure', erasure,
          'kind', 'expiry',
          'run', expire.run,
          'at', pii_vault.utc_text(clock_timestamp()),
          'before', to_char(day, 'YYYY-MM-DD'),
          'erased', pii_vault.count_by_field(gone),
          'held', held,
          'originals', originals,
          'digest', pii_vault.token_digest(gone)
        )
      );
    end if;
  end if;
  return next;
end
$$;

-- Bodies that nobody replayed or discarded in that time, up to 1000: they become discarded. While anything is
-- held none of them goes: nobody can see into them to tell whose they are.
create or replace function pii_vault.expire_bodies(older_than integer, run uuid, reason text, dry boolean)
  returns table (discarded integer, held integer)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  day timestamptz :=
    pii_vault.day_before(expire_bodies.older_than)::timestamp at time zone interval '0';
  gone text[];
begin
  perform pii_vault.require_reason(expire_bodies.reason);
  if expire_bodies.run is null or expire_bodies.dry is null then
    raise exception using errcode = 'VL006', message = 'expected the id of the run';
  end if;
  discarded := 0;
  held := 0;
  if not expire_bodies.dry then
    -- A hold that comes now waits for this, or this for it.
    perform pii_vault.close_gate();
  end if;
  if exists (select from pii_vault.holds h where h.released_at is null) then
    select count(*) into held from etl.quarantine q where q.state = 'open' and q.sent_at < day;
  elsif expire_bodies.dry then
    select count(*) into discarded from etl.quarantine q where q.state = 'open' and q.sent_at < day;
  else
    gone := etl.empty_bodies(array(
      select q.message_id from etl.quarantine q
      where q.state = 'open' and q.sent_at < day
      order by q.message_id
      limit 1000
    ));
    discarded := cardinality(gone);
    if discarded > 0 then
      perform pii_vault.record(
        'quarantine.discard', null, '{}', gone, discarded, expire_bodies.reason,
        json_build_object('kind', 'expiry', 'run', expire_bodies.run)
      );
    end if;
  end if;
  return next;
end
$$;

