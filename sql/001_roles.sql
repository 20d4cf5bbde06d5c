-- The roles, and the two schemas that hold everything but the analysts' table.
--
-- Roles belong to the cluster while migrations run per database: twenty databases of one cluster
-- that migrate at once meet here. A role that another one made in between is what we wanted
-- (duplicate_object, unique_violation); a catalog row that both touch is tried again (XX000,
-- "tuple concurrently updated").

do $$
declare
  wanted text;
begin
  foreach wanted in array array[
    'veil_owner', 'veil_etl', 'veil_analyst', 'veil_revealer', 'veil_operator', 'veil_auditor'
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

-- Who migrates must be able to act as veil_owner. A superuser is; the one who made the roles, or holds
-- them with admin option, may let himself (from PostgreSQL 16 on, making a role is not enough).
do $$
begin
  for attempt in 1..50 loop
    begin
      if not (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
        begin
          if not pg_catalog.pg_has_role(current_user, 'veil_owner', 'usage') then
            raise insufficient_privilege;
          end if;
          perform pg_catalog.set_config('role', 'veil_owner', true);
          perform pg_catalog.set_config('role', 'none', true);
        exception when insufficient_privilege then
          grant veil_owner to current_user;
        end;
      end if;
      exit;
    exception
      when unique_violation then
        null;
      when internal_error then
        if attempt = 50 then raise; end if;
        perform pg_catalog.pg_sleep(random() * 0.05);
    end;
  end loop;
end
$$;

create schema etl authorization veil_owner;
create schema pii_vault authorization veil_owner;

set local role veil_owner;

-- Before the first function: otherwise each would be born with execute for everybody.
alter default privileges for role veil_owner revoke execute on functions from public;
alter default privileges for role veil_owner revoke all on tables from public;

revoke all on schema etl from public;
revoke all on schema pii_vault from public;
grant usage on schema etl to veil_etl, veil_analyst, veil_revealer, veil_operator, veil_auditor;
grant usage on schema pii_vault to veil_revealer, veil_operator, veil_auditor;

create table etl.migrations (
  version integer not null,
  name text not null,
  applied_at timestamptz not null default now(),
  constraint migrations_key primary key (version)
);

create function etl.schema_version() returns integer
  language sql stable security definer
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(max(version), 0) from etl.migrations
$$;

revoke all on function etl.schema_version() from public;
grant execute on function etl.schema_version()
  to veil_etl, veil_analyst, veil_revealer, veil_operator, veil_auditor;
