-- The chain over the audit: each entry hashed with its predecessor, so that none can be changed, moved, put in or
-- taken out unnoticed. docs/audit.md has the bytes, `veil audit verify` recomputes them elsewhere.
--
-- An entry is chained after it was committed, by a step of its own: under the writer's transaction, whoever leaves
-- one open would block every other, and under REPEATABLE READ two would follow the same predecessor.

create or replace function pii_vault.refuse_step_back() returns trigger
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
begin
  if new.chain is distinct from old.chain or (new.position > old.position) is not true then
    raise exception using
      errcode = 'VL020', message = 'pii_vault.audit_head only moves on: this update is refused';
  end if;
  return new;
end
$$;

-- An entry as bytes: a label, then each column as 00 where it is null, else 01, its length in four bytes and
-- itself. Whatever a session has set is kept out: no output function of a time or of bytes, no textsend
-- (client_encoding), no backslash (standard_conforming_strings).
create or replace function pii_vault.audit_list_bytes(list text[]) returns bytea
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  if list is null then
    return null;
  end if;
  return (
    select int4send(count(*)::integer) || coalesce(
      string_agg(
        coalesce(decode('01', 'hex') || int4send(octet_length(e.bytes)) || e.bytes, decode('00', 'hex')),
        null order by e.position
      ),
      convert_to('', 'UTF8')
    )
    from (
      select convert_to(u.element, 'UTF8'), u.position
      from unnest(list) with ordinality as u (element, position)
    ) e (bytes, position)
  );
end
$$;

create or replace function pii_vault.audit_entry_bytes(entry pii_vault.audit) returns bytea
  language plpgsql stable
  set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select convert_to('veil/v1/audit-entry', 'UTF8') || string_agg(
      coalesce(decode('01', 'hex') || int4send(octet_length(f.bytes)) || f.bytes, decode('00', 'hex')),
      null order by f.position
    )
    from unnest(array[
      int8send(entry.id), timestamptz_send(entry.at), convert_to(entry.login, 'UTF8'),
      oidsend(entry.login_oid), convert_to(entry.role, 'UTF8'), convert_to(entry.address, 'UTF8'),
      convert_to(entry.action, 'UTF8'), uuid_send(entry.request),
      pii_vault.audit_list_bytes(entry.tokens), pii_vault.audit_list_bytes(entry.message_ids),
      int4send(entry.items), convert_to(entry.reason, 'UTF8'), convert_to(entry.details::text, 'UTF8')
    ]) with ordinality as f (bytes, position)
  );
end
$$;

-- The step itself: up to 10000 of the waiting entries that this statement sees, in the order of their ids; one
-- that commits later is chained later. Zero: nothing waits. Null: somebody else is at it.
create or replace function pii_vault.chain_waiting() returns integer
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  head pii_vault.audit_head;
  entry pii_vault.audit;
  last bigint;
  start bigint;
  entries bigint[];
  hashes bytea[];
  chained integer;
begin
  -- The lock below ends with the transaction, so it may not be one that its caller can keep open: what is
  -- being executed is the procedure, alone, which commits next. (In a block of its caller's it does not come
  -- so far. That nothing else stands in the statement is what a function could not see to: a pipeline that is
  -- never finished would hold its lock for ever.)
  if coalesce(
    current_query() ~* '^[[:space:]]*call[[:space:]]+pii_vault[.]chain_audit[[:space:]]*[(][[:space:]]*[)][[:space:]]*;?[[:space:]]*$',
    false
  ) is not true then
    raise exception using
      errcode = 'VL043',
      message = 'the audit is chained by a statement of its own',
      hint = 'send exactly: call pii_vault.chain_audit()';
  end if;
  -- Nothing is sent to the caller while the lock is held: one who does not read would hold it, too.
  perform set_config('client_min_messages', 'error', true);
  perform set_config('lock_timeout', '2s', true);
  -- Nor does a caller choose plans that make it long.
  perform set_config(name, 'on', true)
  from unnest('{enable_indexscan,enable_indexonlyscan,enable_bitmapscan,enable_nestloop,enable_sort}'::text[]) s (name);
  perform set_config('enable_seqscan', 'off', true);
  if not exists (select from pii_vault.audit_waiting) then
    return 0;
  end if;
  -- A row of the owner's: any login could hold an advisory lock.
  select h.* into head from pii_vault.audit_head h for update skip locked;
  if not found then
    if exists (select from pii_vault.audit_head) then
      return null;
    end if;
    raise exception using
      errcode = 'VL043', message = 'the head of the audit chain is missing',
      hint = 'somebody altered the database: run `veil audit verify`';
  end if;
  select c.position into last from pii_vault.audit_chain c order by c.position desc limit 1;
  if coalesce(last, 0) <> head.position then
    raise exception using
      errcode = 'VL043', message = 'the audit chain does not end where its head says',
      hint = 'somebody altered the database: run `veil audit verify`';
  end if;
  -- A chain that were lost in a crash would be taken for a cut one, by whoever has signed its end.
  perform pii_vault.commit_to_disk();

  -- More than once only where chaining itself puts something on record: that is chained in the same step, so
  -- that a caller cannot tell from how much he has chained whether it did.
  for round in 1..3 loop
    start := head.position;
    entries := '{}';
    hashes := '{}';
    -- Entry by entry: planned once a session, whatever the tables held then. What is chained already may wait
    -- again after a restore of the data alone; what is missing waits for ever, and verifying names it.
    for entry in
      select a.*
      from pii_vault.audit_waiting w
      cross join lateral (select l.* from pii_vault.audit l where l.id = w.entry limit 1) a
      where not exists (select from pii_vault.audit_chain c where c.entry = w.entry offset 0)
      order by w.entry
      limit 10000
    loop
      head.position := head.position + 1;
      head.hash := sha256(
        convert_to('veil/v1/audit-chain', 'UTF8') || head.hash || int8send(head.position)
          || pii_vault.audit_entry_bytes(entry)
      );
      entries := entries || entry.id;
      hashes := hashes || head.hash;
    end loop;
    exit when head.position = start;
    insert into pii_vault.audit_chain (position, entry, hash)
    select start + n.position, n.entry, n.hash
    from unnest(entries, hashes) with ordinality as n (entry, hash, position);
    delete from pii_vault.audit_waiting w using unnest(entries) as n (entry) where w.entry = n.entry;
    chained := coalesce(chained, cardinality(entries));
    exit when not pii_vault.on_chained(entries);
  end loop;
  if chained is null then
    delete from pii_vault.audit_waiting w
    where exists (select from pii_vault.audit_chain c where c.entry = w.entry);
    return 0;
  end if;
  update pii_vault.audit_head h set position = head.position, hash = head.hash;
  return chained;
end
$$;

-- Runs as its caller and has no settings of its own, because only then may it commit: everything in it is
-- qualified. The first commit fails in a transaction block; the isolation level is the step's, whatever the
-- server's or the login's default is.
create or replace procedure pii_vault.chain_audit(inout chained integer default 0)
  language plpgsql
as $$
begin
  commit;
  set transaction isolation level read committed, read write;
  chained := pii_vault.chain_waiting();
  commit;
  -- For whoever follows, and looks what it is: anybody may listen, so it says nothing. Apart, because it fails
  -- where the queue of notifications is full, which any login can bring about.
  if chained > 0 then
    perform pg_catalog.pg_notify('veil_audit', '');
    commit;
  end if;
end
$$;

