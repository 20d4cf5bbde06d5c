-- What analysts read user_logins through, and the one view through which veil reads both of its token columns.
-- Written only where this file, or that of the triggers, has changed: replacing a view waits for whoever reads it.

-- Every place where a token, or whatever stands in its column, occurs in a row: what holds for ip and for device_id
-- alike is said of this. Both legs are cast to text: with another type in one of them, the planner uses no index.
--
-- A look-up by a token goes by the index only where the token has the database's own collation. A parameter has it. A
-- token from a column that is collate "C" needs `collate "default"`.
create or replace view pii_vault.occurrences as
  select o.field, o.token, o.user_id, o.create_date, o.partition, o.place
  from (
    select 'ip'::text, l.masked_ip::text, l.user_id::text, l.create_date, l.tableoid, l.ctid
    from public.user_logins l
    union all
    select 'device_id'::text, l.masked_device_id::text, l.user_id::text, l.create_date, l.tableoid, l.ctid
    from public.user_logins l
  ) o (field, token, user_id, create_date, partition, place)
  -- Not in the legs: they would be planned apart, and neither could give its rows in the order of its index.
  where o.token is not null;

comment on view pii_vault.occurrences is
  'where each token stands in user_logins: field, token, user, day, and the row''s partition and place there';

create or replace view public.user_logins_shared_tokens as
  select
    o.field, o.token,
    count(distinct o.user_id) as users,
    count(*) as logins,
    min(o.create_date) as first_day,
    max(o.create_date) as last_day
  from pii_vault.occurrences o
  -- The token first, which tells most of them apart.
  group by o.token, o.field
  having count(distinct o.user_id) > 1;

comment on view public.user_logins_shared_tokens is
  'tokens that more than one user logged in with';

create or replace view public.user_logins_per_token_and_day as
  select
    o.field, o.token, o.create_date,
    count(*) as logins,
    count(distinct o.user_id) as users
  from pii_vault.occurrences o
  group by o.token, o.field, o.create_date;

comment on view public.user_logins_per_token_and_day is
  'how often each token logged in on each day, and as how many users';
