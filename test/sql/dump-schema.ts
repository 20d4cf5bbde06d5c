// The schema that the migrations end in, as text, from the catalog: what a reviewer compares, and the
// same on every supported version. Partitions of days and periods come and go and are left out.
import type postgres from "postgres";

// Written so that it answers alike on 14 to 18: not null as a property of the column (a constraint of
// its own from 18 on), owners' own rights left out (17 adds one), view definitions without the
// qualified columns that versions before 16 print.
const SECTIONS: readonly { readonly title: string; readonly query: string }[] = [
  {
    title: "schemas",
    query: `
      select format('schema %I owner %s', n.nspname, n.nspowner::regrole) as line
      from pg_namespace n where n.nspname in ('etl', 'pii_vault') order by n.nspname collate "C"`,
  },
  {
    title: "columns",
    query: `
      select format('%I.%I.%I %s%s%s%s%s', n.nspname, c.relname, a.attname,
        format_type(a.atttypid, a.atttypmod),
        case when a.attcollation not in (0, t.typcollation) then format(' collate %s', l.collname) end,
        case when a.attnotnull then ' not null' end,
        case a.attidentity when 'a' then ' generated always as identity' end,
        ' default ' || pg_get_expr(d.adbin, d.adrelid)) as line
      from pg_attribute a
      join pg_class c on c.oid = a.attrelid
      join pg_namespace n on n.oid = c.relnamespace
      join pg_type t on t.oid = a.atttypid
      left join pg_collation l on l.oid = a.attcollation
      left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
      where {{ours}} and c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped
      order by n.nspname collate "C", c.relname collate "C", a.attnum`,
  },
  {
    title: "tables",
    query: `
      select format('%s %I.%I owner %s%s%s', case c.relkind when 'v' then 'view' else 'table' end,
        n.nspname, c.relname, c.relowner::regrole,
        ' partition by ' || pg_get_partkeydef(c.oid),
        case when c.relispartition
          then ' partition ' || pg_get_expr(c.relpartbound, c.oid) end) as line
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where {{ours}} and c.relkind in ('r', 'p', 'v', 'm', 'f')
      order by n.nspname collate "C", c.relname collate "C"`,
  },
  {
    title: "constraints",
    query: `
      select format('%I.%I %I %s', n.nspname, c.relname, o.conname, pg_get_constraintdef(o.oid))
        as line
      from pg_constraint o
      join pg_class c on c.oid = o.conrelid
      join pg_namespace n on n.oid = c.relnamespace
      where {{ours}} and o.contype <> 'n'
      order by n.nspname collate "C", c.relname collate "C", o.conname collate "C"`,
  },
  {
    title: "indexes",
    query: `
      select pg_get_indexdef(i.indexrelid) as line
      from pg_index i
      join pg_class c on c.oid = i.indrelid
      join pg_namespace n on n.oid = c.relnamespace
      where {{ours}}
      order by n.nspname collate "C", c.relname collate "C", i.indexrelid::regclass::text collate "C"`,
  },
  {
    title: "triggers",
    query: `
      select pg_get_triggerdef(g.oid) || case g.tgenabled when 'O' then '' else ' -- ' || g.tgenabled::text end as line
      from pg_trigger g
      join pg_class c on c.oid = g.tgrelid
      join pg_namespace n on n.oid = c.relnamespace
      where {{ours}} and not g.tgisinternal
      order by n.nspname collate "C", c.relname collate "C", g.tgname collate "C"`,
  },
  {
    title: "rules",
    query: `
      select pg_get_ruledef(r.oid) as line
      from pg_rewrite r
      join pg_class c on c.oid = r.ev_class
      join pg_namespace n on n.oid = c.relnamespace
      where {{ours}} and r.rulename <> '_RETURN'
      order by 1`,
  },
  {
    title: "views",
    query: `
      select format(E'%I.%I as\\n%s', n.nspname, c.relname,
        regexp_replace(pg_get_viewdef(c.oid), '\\m[lo]\\.', '', 'g')) as line
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where {{ours}} and c.relkind in ('v', 'm')
      order by n.nspname collate "C", c.relname collate "C"`,
  },
  {
    title: "functions",
    query: `
      select rtrim(pg_get_functiondef(p.oid), E'\\n') || format(E'\\n-- owner %s', p.proowner::regrole)
        as line
      from pg_proc p join pg_namespace n on n.oid = p.pronamespace
      where n.nspname in ('etl', 'pii_vault')
      order by n.nspname collate "C", p.proname collate "C",
        pg_get_function_identity_arguments(p.oid) collate "C"`,
  },
  {
    title: "comments",
    query: `
      select format('%I.%I: %s', n.nspname, c.relname, d.description) as line
      from pg_description d
      join pg_class c on c.oid = d.objoid and d.classoid = 'pg_class'::regclass and d.objsubid = 0
      join pg_namespace n on n.oid = c.relnamespace
      where {{ours}} order by n.nspname collate "C", c.relname collate "C"`,
  },
  {
    title: "grants",
    query: `
      with grants (object, acl, owner) as (
        select format('schema %I', n.nspname), n.nspacl, n.nspowner
        from pg_namespace n where n.nspname in ('etl', 'pii_vault')
        union all
        select format('%I.%I', n.nspname, c.relname), c.relacl, c.relowner
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where {{ours}} and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
        union all
        select format('%I.%I (%I)', n.nspname, c.relname, a.attname), a.attacl, c.relowner
        from pg_attribute a
        join pg_class c on c.oid = a.attrelid
        join pg_namespace n on n.oid = c.relnamespace
        where {{ours}}
        union all
        select format('function %I.%I', n.nspname, p.proname),
          coalesce(p.proacl, acldefault('f', p.proowner)), p.proowner
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace
        where n.nspname in ('etl', 'pii_vault')
        union all
        select 'database', coalesce(d.datacl, acldefault('d', d.datdba)), d.datdba
        from pg_database d where d.datname = current_database()
        union all
        select format('default of %s for %s', d.defaclrole::regrole,
          case d.defaclobjtype when 'f' then 'functions' else d.defaclobjtype::text end),
          d.defaclacl, d.defaclrole
        from pg_default_acl d
      )
      select line from (select format('%s: %s to %s%s', object, lower(a.privilege_type),
        case a.grantee when 0 then 'public' else a.grantee::regrole::text end,
        case when a.is_grantable then ' with grant option' end) as line
      from grants, aclexplode(acl) a
      where a.grantee <> owner) g
      order by line collate "C"`,
  },
];

const OURS = `(
  (n.nspname in ('etl', 'pii_vault') or (n.nspname = 'public' and c.relname like 'user\\_logins%'))
  and c.relname !~ '^(ledger|user_logins|originals)_[0-9]{8}'
)`;

export async function dumpSchema(sql: postgres.Sql): Promise<string> {
  const sections = await sql.begin(async (transaction) => {
    // Names come out qualified.
    await transaction.unsafe("set local search_path = pg_catalog");
    const texts: string[] = [];
    for (const { title, query } of SECTIONS) {
      const rows = await transaction.unsafe(query.replaceAll("{{ours}}", OURS));
      const gap = /^(views|functions)$/.test(title) ? "\n\n" : "\n";
      texts.push(`-- ${title}\n\n${rows.map((row) => String(row.line)).join(gap)}\n`);
    }
    return texts;
  });
  return `-- What the migrations end in. Written by the tests: UPDATE_SCHEMA=1 bun test test/sql/migrate\n\n${sections.join("\n")}`;
}
