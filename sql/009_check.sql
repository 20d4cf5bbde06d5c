-- What must always hold, checked on a living database: the ledger's daily totals that outlive its
-- partitions, what was here before them, and the invariants, one statement each.

set local role veil_owner;

create table etl.ledger_totals (
  sent_on date not null,
  messages bigint not null,
  constraint ledger_totals_key primary key (sent_on),
  constraint ledger_totals_messages check (messages > 0)
);

comment on table etl.ledger_totals is
  'how many messages of each day were stored, of days whose part of the ledger is gone';

-- One line for each day that did not add up when this version came, and for each with values that are no
-- tokens: of an adopted user_logins, or of days whose part of the ledger was dropped before there were
-- totals. Written here and never again.
create table etl.adopted (
  day date,
  messages bigint not null,
  plain_values bigint not null,
  constraint adopted_day unique (day),
  constraint adopted_plain_values check (plain_values >= 0)
);

comment on table etl.adopted is
  'rows that no ledger entry stands for and values that are no tokens, as they were found at first';

-- How many values stand in a token's column and are none: by day, because they may be personal data
-- themselves. What has an original is a token; the form of each value would cost ten times that join.
create function etl.plain_values() returns table (day date, amount bigint)
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select p.day, count(*)
  from (
    select
      u.create_date,
      starts_with(u.masked_ip collate "C", 'ip')
        and u.masked_ip collate "C" ~ '^ip(0|[1-9][0-9]*)_[a-z2-7]{25}[aeimquy4]$'
    from public.user_logins u
    where u.masked_ip is not null and not exists (
      select from pii_vault.originals o
      where o.token = u.masked_ip collate "C" and starts_with(o.token, 'ip')
    )
    union all
    select
      u.create_date,
      starts_with(u.masked_device_id collate "C", 'dev')
        and u.masked_device_id collate "C" ~ '^dev(0|[1-9][0-9]*)_[a-z2-7]{25}[aeimquy4]$'
    from public.user_logins u
    where u.masked_device_id is not null and not exists (
      select from pii_vault.originals o
      where o.token = u.masked_device_id collate "C" and starts_with(o.token, 'dev')
    )
    -- Otherwise the planner looks at the form first.
    offset 0
  ) p (day, is_token)
  where not p.is_token
  group by p.day
$$;

revoke all on function etl.plain_values() from public;

-- One statement, so one snapshot: loads may go on, and each adds as much to one side as to the other.
-- Housekeeping waits: it and a migration exclude each other.
insert into etl.adopted (day, messages, plain_values)
select f.day, sum(f.held) - sum(f.stored), sum(f.plain)
from (
  select u.create_date as day, count(*) as held, 0 as stored, 0 as plain
  from public.user_logins u group by u.create_date
  union all
  select p.day, 0, 0, p.amount from etl.plain_values() p
  union all
  select (q.sent_at at time zone 'UTC')::date, count(*), 0, 0
  from etl.quarantine q where q.state <> 'replayed' group by 1
  union all
  select l.sent_on, 0, count(*), 0 from etl.ledger l group by l.sent_on
) f
group by f.day
having sum(f.held) <> sum(f.stored) or sum(f.plain) > 0;

-- As before (sql/004), and: what a day's ledger held is written down before it goes. What takes long comes
-- before the locks that a load would wait for.
create or replace function etl.housekeep_on(today date)
  returns table (created integer, dropped integer)
  language plpgsql
  set search_path = pg_catalog, pg_temp
  set lock_timeout = '250ms'
as $$
declare
  day date;
  missing date[];
  old text[];
  partition text;
  near boolean;
  made integer;
begin
  created := 0;
  dropped := 0;
  -- One at a time; whoever comes second has nothing to do. A lock on a table of the owner's, because any
  -- login could hold an advisory one.
  begin
    lock table etl.migrations in exclusive mode nowait;
  exception when lock_not_available then
    return next;
    return;
  end;

  -- Blocks: where loads are busy just now, one gives up, undoes nothing of the others, and the next call
  -- does it.
  begin
    with gone as (
      delete from etl.ledger_default l where l.sent_on < today - 30 returning l.sent_on
    )
    insert into etl.ledger_totals as t (sent_on, messages)
    select g.sent_on, count(*) from gone g group by g.sent_on
    on conflict (sent_on) do update set messages = t.messages + excluded.messages;
  exception when lock_not_available or deadlock_detected then
    null;
  end;

  begin
    select coalesce(array_agg(c.relname::text order by c.relname), '{}') into old
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'etl.ledger'::regclass
      and c.relname ~ '^ledger_[0-9]{8}$'
      and to_date(right(c.relname, 8), 'YYYYMMDD') < today - 30;
    foreach partition in array old loop
      -- Against a load that would add to it between the count and the end.
      execute format('lock table etl.%I in share row exclusive mode', partition);
      execute format(
        'insert into etl.ledger_totals as t (sent_on, messages)
         select l.sent_on, count(*) from etl.%I l group by l.sent_on
         on conflict (sent_on) do update set messages = t.messages + excluded.messages',
        partition
      );
    end loop;
    foreach partition in array old loop
      execute format('drop table etl.%I', partition);
      dropped := dropped + 1;
    end loop;
  exception when lock_not_available or deadlock_detected then
    dropped := 0;
  end;

  -- First the days ahead, then those that messages may be coming for.
  foreach near in array array[false, true] loop
    made := 0;
    begin
      -- A day that has rows in the default partition keeps them there, all of its rows: each id is known
      -- there as well as anywhere, and they go when they are old.
      select coalesce(array_agg(today + n order by n), '{}') into missing
      from generate_series(-14, 7) n
      where (n < 2) = near
        and to_regclass('etl.ledger_' || to_char(today + n, 'YYYYMMDD')) is null
        and not exists (select from etl.ledger_default l where l.sent_on = today + n);
      if cardinality(missing) > 0 then
        -- A load that has looked for its partition before this one is attached would go on to the
        -- default partition and be refused there (23514). So no load may be under way: they wait here,
        -- for a moment and after an idle week only. Nobody loads the days ahead.
        if near then
          lock table only etl.ledger in share row exclusive mode;
        end if;
        -- Before looking into it again: what a load has put there and not committed yet would not be
        -- seen, and a partition beside such rows is refused.
        lock table etl.ledger_default in access exclusive mode;
      end if;
      foreach day in array missing loop
        continue when exists (select from etl.ledger_default l where l.sent_on = day);
        partition := 'ledger_' || to_char(day, 'YYYYMMDD');
        -- Made apart and attached, because that locks the ledger against other changes of its shape
        -- only; "create table … partition of" would wait for every load, and make every load wait.
        execute format(
          'create table etl.%I (like etl.ledger including defaults including constraints)', partition
        );
        execute format(
          'alter table etl.ledger attach partition etl.%I for values from (%L) to (%L)',
          partition, day, day + 1
        );
        made := made + 1;
      end loop;
      created := created + made;
    exception when lock_not_available or deadlock_detected then
      null;
    end;
  end loop;
  return next;
end
$$;

revoke all on function etl.housekeep_on(date) from public;

-- One way to write a day, whatever DateStyle its caller has set.
create function etl.day_text(day date) returns text
  language sql stable
  set search_path = pg_catalog, pg_temp
as $$
  select case
    when day is null then 'without a date'
    when isfinite(day) then to_char(day, 'YYYY-MM-DD')
    else day::text
  end
$$;

-- How many things were checked, how many break the invariant, and which ones, up to five: tokens, ids and
-- days, never a value. Each answer is of one snapshot, so loads may go on.
create function etl.check_invariant(invariant text)
  returns table (checked bigint, offenders bigint, examples text[])
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
  -- A snapshot from before could miss both a dropped partition and its total.
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using
      errcode = 'VL015', message = 'a check needs the isolation level read committed';
  end if;

  if invariant = 'tokens-have-originals' then
    -- Generation 0 stands for nothing recoverable. The columns' own collation may be anything in an
    -- adopted table.
    return query
      with lost as (
        select distinct t.token
        from (
          select u.masked_ip collate "C" from public.user_logins u
          where u.masked_ip is not null and not exists (
            select from pii_vault.originals o where o.token = u.masked_ip collate "C"
          )
          union all
          select u.masked_device_id collate "C" from public.user_logins u
          where u.masked_device_id is not null and not exists (
            select from pii_vault.originals o where o.token = u.masked_device_id collate "C"
          )
          -- The join first: the form of a million values costs ten times as much.
          offset 0
        ) t (token)
        where t.token ~ '^(ip|dev)[1-9][0-9]*_[a-z2-7]{25}[aeimquy4]$'
      )
      select
        (select count(u.masked_ip) + count(u.masked_device_id) from public.user_logins u),
        (select count(*) from lost),
        array(select l.token::text from lost l order by l.token limit 5);

  elsif invariant = 'values-are-tokens' then
    return query
      with broken as (
        select d.day, sum(d.plain)::bigint as plain
        from (
          select p.day, p.amount as plain from etl.plain_values() p
          union all
          select a.day, -a.plain_values from etl.adopted a where a.plain_values > 0
        ) d
        group by d.day
        having sum(d.plain) > 0
      )
      select
        (select count(u.masked_ip) + count(u.masked_device_id) from public.user_logins u),
        (select coalesce(sum(b.plain), 0)::bigint from broken b),
        array(
          select format('%s: %s values', etl.day_text(b.day), b.plain)
          from broken b order by b.day limit 5
        );

  elsif invariant = 'originals-have-data-keys' then
    return query
      with lost as (
        select o.token from pii_vault.originals o
        where not exists (select from pii_vault.data_keys k where k.id = o.data_key)
      )
      select
        (select count(*) from pii_vault.originals),
        (select count(*) from lost),
        array(select l.token from lost l order by l.token limit 5);

  elsif invariant = 'bodies-have-data-keys' then
    return query
      with lost as (
        select q.message_id from etl.quarantine q
        where q.sealed is not null
          and not exists (select from pii_vault.data_keys k where k.id = q.data_key)
      )
      select
        (select count(*) from etl.quarantine q where q.sealed is not null),
        (select count(*) from lost),
        array(select l.message_id from lost l order by l.message_id limit 5);

  elsif invariant = 'data-keys-are-whole' then
    -- The header of a binary age file ends with its MAC, after which come a nonce of 16 bytes and the
    -- data key's 32 with their tag. Every stanza of the header is somebody who can open it.
    return query
      with read as (
        select
          k.id, k.generation, coalesce(cardinality(k.recipients), 0) as named,
          coalesce(octet_length(k.proof), 0) as proof_bytes,
          (
            h.header ~ E'^age-encryption[.]org/v1\n(-> (X25519|mlkem768x25519) [A-Za-z0-9+/]+\n[A-Za-z0-9+/]+\n)+--- [A-Za-z0-9+/]+\n$'
            and octet_length(k.wrapped) = m.mac + 48 + 64
          ) is true as is_age_file,
          (select count(*) from regexp_matches(h.header, E'\n-> X25519 ', 'g')) as classic,
          (select count(*) from regexp_matches(h.header, E'\n-> mlkem768x25519 ', 'g')) as hybrid,
          (select count(*) from unnest(k.recipients) r (name) where r.name like 'age1pq1%') as named_hybrid
        from pii_vault.data_keys k
        cross join lateral (
          select position(decode('0a2d2d2d20', 'hex') in k.wrapped) as mac
        ) m
        cross join lateral (
          select encode(substring(k.wrapped for m.mac + 48), 'escape') as header
        ) h
      ),
      broken as (
        select r.id, case
          when r.named = 0 then 'no recipients'
          when r.proof_bytes <> 32 then 'no proof'
          when not r.is_age_file then 'not the age file of a data key'
          when r.classic + r.hybrid <> r.named
            then format('%s recipients named, %s in its age file', r.named, r.classic + r.hybrid)
          when r.hybrid <> r.named_hybrid then 'recipients of another kind in its age file'
          when not exists (
            select from pii_vault.key_generations g where g.generation = r.generation
          ) then format('generation %s is not registered', r.generation)
        end as what
        from read r
      )
      select
        (select count(*) from broken),
        (select count(b.what) from broken b),
        array(
          select format('%s: %s', b.id, b.what)
          from broken b where b.what is not null order by b.id limit 5
        );

  elsif invariant = 'nonces-are-used-once' then
    -- Under one data key, that is. The same seal twice has the same nonce twice.
    return query
      with seals as (
        select o.data_key, o.sealed from pii_vault.originals o
        union all
        select q.data_key, q.sealed from etl.quarantine q where q.sealed is not null
      ),
      nonces as (
        select s.data_key, count(*) as times from seals s
        group by s.data_key, substring(s.sealed for 12)
      )
      select
        coalesce(sum(n.times), 0)::bigint,
        coalesce(sum(n.times) filter (where n.times > 1), 0)::bigint,
        coalesce((array_agg(distinct n.data_key::text) filter (where n.times > 1))[1:5], '{}')
      from nonces n;

  elsif invariant = 'days-add-up' then
    -- Before the snapshot, so that it sees either a partition or its total.
    lock table etl.ledger in access share mode;
    return query
      with days as (
        select s.day, sum(s.held)::bigint as held, sum(s.stored)::bigint as stored
        from (
          select u.create_date, count(*), 0 from public.user_logins u group by u.create_date
          union all
          select (q.sent_at at time zone 'UTC')::date, count(*), 0
          from etl.quarantine q where q.state <> 'replayed' group by 1
          union all
          select l.sent_on, 0, count(*) from etl.ledger l group by l.sent_on
          union all
          select t.sent_on, 0, t.messages from etl.ledger_totals t
          union all
          select a.day, 0, a.messages from etl.adopted a
        ) s (day, held, stored)
        group by s.day
      )
      select
        count(*),
        count(*) filter (where d.held <> d.stored),
        coalesce(
          (
            array_agg(
              format(
                '%s: %s rows and quarantined, %s stored messages',
                etl.day_text(d.day), d.held, d.stored
              )
              order by d.day
            ) filter (where d.held <> d.stored)
          )[1:5],
          '{}'
        )
      from days d;

  elsif invariant = 'messages-are-stored-once' then
    lock table etl.ledger in access share mode;
    return query
      with ids as (
        select l.message_id, count(*) as times from etl.ledger l group by l.message_id
      )
      select
        coalesce(sum(i.times), 0)::bigint,
        count(*) filter (where i.times > 1),
        coalesce(
          (array_agg(i.message_id order by i.message_id) filter (where i.times > 1))[1:5], '{}'
        )
      from ids i;

  elsif invariant = 'requests-are-on-record' then
    return query
      with lost as (
        select r.id from pii_vault.requests r
        where not exists (
          select from pii_vault.audit a
          where a.request = r.id and a.login = r.login and a.login_oid = r.login_oid
            and a.tokens || a.message_ids = r.subjects
            and a.action = case r.purpose
              when 'reveal' then 'reveal.request' else 'quarantine.' || r.purpose
            end
        )
      )
      select
        (select count(*) from pii_vault.requests),
        (select count(*) from lost),
        array(select l.id::text from lost l order by l.id limit 5);

  else
    raise exception using errcode = 'VL006', message = 'there is no such invariant';
  end if;
end
$$;

revoke all on function etl.day_text(date) from public;
revoke all on function etl.check_invariant(text) from public;
grant execute on function etl.check_invariant(text) to veil_operator, veil_auditor;
