-- What was migrated, and what becomes of messages: the ledger of the stored ones, the quarantine of those that
-- could not become rows.
--
-- Steps make tables and go forward only: one that has been released is never edited, a later one changes what it made.
-- They may call nothing of sql/current/, which a fresh database does not have yet.

-- One line for each migration that changed something. Its last one says where the database stands.
create table etl.migrations (
  id bigint generated always as identity,
  step integer not null,
  hash text not null,
  written_in xid8 not null default pg_current_xact_id(),
  routines integer not null,
  relations_hash text not null,
  relations_written_in xid8 not null default pg_current_xact_id(),
  relations integer not null,
  migrated_at timestamptz not null default clock_timestamp(),
  constraint migrations_key primary key (id),
  constraint migrations_step check (step > 0),
  constraint migrations_hash check (hash ~ '^[0-9a-f]{64}$')
);

comment on table etl.migrations is
  'the last step, the hashes of sql/current/, and how many routines, views and triggers which transactions wrote';

-- One row per stored message, so that a redelivery changes nothing. Partitioned by the day on which the message
-- was sent: its id always comes with the same day, so (day, id) is as unique as the id.
create table etl.ledger (
  sent_on date not null,
  message_id text collate "C" not null,
  constraint ledger_key primary key (sent_on, message_id),
  constraint ledger_message_id check (char_length(message_id) between 1 and 128)
) partition by range (sent_on);

-- Where a message lands whose day has no partition: ingestion never waits for housekeeping.
create table etl.ledger_default partition of etl.ledger default;

create table etl.ledger_totals (
  sent_on date not null,
  messages bigint not null,
  constraint ledger_totals_key primary key (sent_on),
  constraint ledger_totals_messages check (messages > 0)
);

comment on table etl.ledger_totals is
  'how many messages of each day were stored, of days whose part of the ledger is gone';

-- No key, because rows may be without a date.
create table etl.adopted (
  day date,
  messages bigint not null,
  plain_values bigint not null,
  tokens bigint not null default 0,
  constraint adopted_day unique (day),
  constraint adopted_plain_values check (plain_values >= 0),
  constraint adopted_tokens check (tokens >= 0)
);

alter table etl.adopted replica identity full;

comment on table etl.adopted is
  'of a copied table: rows, which have no ledger entry, values that are no tokens, and tokens without original';

create table etl.quarantine (
  message_id text collate "C" not null,
  sent_at timestamptz not null,
  reason text not null,
  data_key uuid not null,
  sealed bytea,
  state text not null default 'open',
  quarantined_at timestamptz not null default clock_timestamp(),
  changed_at timestamptz,
  changed_by text,
  constraint quarantine_key primary key (message_id),
  constraint quarantine_message_id check (char_length(message_id) between 1 and 128),
  constraint quarantine_reason check (char_length(reason) between 1 and 500),
  constraint quarantine_state check (state in ('open', 'replayed', 'discarded')),
  -- A replay empties the body, as a discard does: what it held stands in a row now.
  constraint quarantine_sealed check ((sealed is not null) = (state = 'open'))
);

create index quarantine_open on etl.quarantine (sent_at) where state = 'open';

-- An analyze keeps samples of a column where no delete reaches them. Nothing plans by what a seal is.
alter table etl.quarantine alter column sealed set statistics 0;
