-- What analysts read user_logins through, and the one view through which veil reads both of its token columns.

-- Every place where a token, or whatever stands in its column, occurs in a row: what holds for ip and for device_id
-- alike is said of this. Both legs are cast to text: with another type in one of them, the planner uses no index.
--
-- A look-up by a token goes by the index only where the token has the database's own collation. A parameter has it. A
-- token from a column that is collate "C" needs `collate "default"`.
create or replace view pii_vault.occurrences as
  select
    'ip'::text as field, l.masked_ip::text as token, l.user_id::text as user_id, l.create_date,
    l.ctid as place
  from public.user_logins l
  where l.masked_ip is not null
  union all
  select
    'device_id'::text, l.masked_device_id::text, l.user_id::text, l.create_date,
    l.ctid
  from public.user_logins l
  where l.masked_device_id is not null;

comment on view pii_vault.occurrences is
  'where each token stands in user_logins: field, token, user, day and the row''s place';

create or replace view public.user_logins_shared_tokens as
  select
    o.field, o.token,
    count(distinct o.user_id) as users,
    count(*) as logins,
    min(o.create_date) as first_day,
    max(o.create_date) as last_day
  from pii_vault.occurrences o
  group by o.field, o.token
  having count(distinct o.user_id) > 1;

comment on view public.user_logins_shared_tokens is
  'tokens that more than one user logged in with';

create or replace view public.user_logins_per_token_and_day as
  select
    o.field, o.token, o.create_date,
    count(*) as logins,
    count(distinct o.user_id) as users
  from pii_vault.occurrences o
  group by o.field, o.token, o.create_date;

comment on view public.user_logins_per_token_and_day is
  'how often each token logged in on each day, and as how many users';

-- The body is parsed here and not at the call, so no caller's search path changes what it means.
create or replace function etl.app_version_text(app_version integer) returns text
  language sql immutable strict parallel safe
  return (app_version / 1000000)::text || '.' || (app_version / 1000 % 1000)::text
    || '.' || (app_version % 1000)::text;
