-- What must always hold of messages and of the record; of the vault: check-vault.sql. Each answer is of one snapshot, so
-- loads may go on.

create or replace function etl.check_days_add_up(
  out checked bigint, out offenders bigint, out examples text[]
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  with days as (
    select s.day, sum(s.held)::bigint as held, sum(s.stored)::bigint as stored
    from (
      select l.create_date, count(*), 0 from public.user_logins l group by l.create_date
      union all
      select e.day, e.logins, 0 from etl.expired_logins e
      union all
      select (q.sent_at at time zone interval '0')::date, count(*), 0
      from etl.quarantine q where q.state <> 'replayed' group by 1
      union all
      select l.sent_on, 0, count(*) from etl.ledger l group by l.sent_on
      union all
      select t.sent_on, 0, t.messages from etl.ledger_totals t
      union all
      select a.day, 0, a.messages from etl.adopted a
    ) s (day, held, stored)
    group by s.day
  ),
  broken as (
    select d.day, format(
      '%s: %s rows and quarantined, %s stored messages', etl.day_text(d.day), d.held, d.stored
    ) as what
    from days d where d.held <> d.stored
  )
  select
    (select count(*) from days),
    (select count(*) from broken),
    array(select b.what from broken b order by b.day limit 5)
$$;

create or replace function etl.check_messages_are_stored_once(
  out checked bigint, out offenders bigint, out examples text[]
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  with ids as (
    select l.message_id, count(*) as times from etl.ledger l group by l.message_id
  )
  select
    coalesce(sum(i.times), 0)::bigint,
    count(*) filter (where i.times > 1),
    coalesce((array_agg(i.message_id order by i.message_id) filter (where i.times > 1))[1:5], '{}')
  from ids i
$$;

create or replace function etl.check_requests_are_on_record(
  out checked bigint, out offenders bigint, out examples text[]
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  with lost as (
    select r.id from pii_vault.requests r
    where not exists (
      select from pii_vault.audit a
      where a.request = r.id and a.login = r.login and a.login_oid = r.login_oid
        and a.tokens || a.message_ids = r.subjects
        and a.action = case r.kind
          when 'reveal' then 'reveal.request' else 'quarantine.' || r.kind
        end
    )
  )
  select
    (select count(*) from pii_vault.requests),
    (select count(*) from lost),
    array(select l.id::text from lost l order by l.id limit 5)
$$;

-- Tombstones may have become fewer since: lifted, or of values that came again. What is left of one that is whole
-- makes its digest.
create or replace function etl.tombstones_without_entry()
  returns table (what text)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  with stones as (
    select s.erasure, count(*) as erased, pii_vault.token_digest(array_agg(s.token::text)) as digest
    from pii_vault.tombstones s group by s.erasure
  ),
  receipts as (
    select
      a.details ->> 'erasure' as erasure,
      (a.details #>> '{erased,ip}')::bigint + (a.details #>> '{erased,device_id}')::bigint as erased,
      a.details ->> 'digest' as digest
    from pii_vault.audit a where a.action = 'erasure.forget'
  )
  select s.erasure::text from stones s
  where not exists (
    select from receipts r
    where r.erasure = s.erasure::text
      and (s.erased < r.erased or (s.erased = r.erased and s.digest = r.digest))
  )
$$;

-- Periods of which etl.periods and the audit do not say the same, and days of whose rows more or fewer have gone than
-- the audit says.
create or replace function etl.expired_otherwise_than_recorded()
  returns table (what text)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  with entries as (
    select a.details from pii_vault.audit a where a.action = 'erasure.expire'
  ),
  recorded as (
    select e.details ->> 'first' as first, e.details ->> 'until' as until,
      bool_or(e.details ->> 'originals' is not null) as originals,
      bool_or(e.details ->> 'rows' is not null) as logins
    from entries e group by 1, 2
  ),
  expired as (
    select etl.day_text(p.first) as first, etl.day_text(p.until) as until,
      p.originals_expired_at is not null as originals, p.logins_expired_at is not null as logins
    from etl.periods p
    where p.originals_expired_at is not null or p.logins_expired_at is not null
  ),
  days as (
    select t.key as day, sum(t.value::bigint) as logins
    from entries e cross join lateral json_each_text(
      case when json_typeof(e.details -> 'days') = 'object' then e.details -> 'days' else '{}' end
    ) t
    group by t.key
  ),
  gone as (
    select etl.day_text(g.day) as day, g.logins from etl.expired_logins g
  )
  select format('period %s', first)
  from recorded r full join expired e using (first, until)
  where (r.originals = e.originals and r.logins = e.logins) is not true
  union all
  select format('rows of %s', day)
  from days d full join gone g using (day)
  where d.logins is distinct from g.logins
$$;

create or replace function etl.check_erasures_are_on_record(
  out checked bigint, out offenders bigint, out examples text[]
)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  with lost as (
    select t.what from etl.tombstones_without_entry() t
    union all
    select e.what from etl.expired_otherwise_than_recorded() e
  )
  select
    (select count(distinct s.erasure) from pii_vault.tombstones s)
      + (
        select count(*) from etl.periods p
        where p.originals_expired_at is not null or p.logins_expired_at is not null
      ),
    (select count(*) from lost),
    array(select l.what from lost l order by l.what limit 5)
$$;

-- Of `days-add-up`, say: what etl.check_days_add_up answers.
create or replace function etl.check_invariant(invariant text)
  returns table (checked bigint, offenders bigint, examples text[])
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  asked regprocedure := to_regprocedure(
    'etl.' || quote_ident('check_' || replace(invariant, '-', '_')) || '()'
  );
begin
  -- A snapshot from before could miss both a dropped partition and its total.
  perform pii_vault.require_read_committed('a check');
  if asked is null or (invariant ~ '^[a-z]+(-[a-z]+)*$') is not true then
    raise exception using errcode = 'VL006', message = 'there is no such invariant';
  end if;
  -- Before the snapshot, so that it sees either a partition or the total of what was in it.
  lock table etl.ledger, public.user_logins, pii_vault.originals in access share mode;
  return query execute format('select * from %s', asked);
end
$$;
