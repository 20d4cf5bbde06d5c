-- What the migrations end in. Written by the tests: UPDATE_SCHEMA=1 bun test test/sql/migrate

-- schemas

schema etl owner veil_owner
schema pii_vault owner veil_owner

-- columns

etl.adopted.day date
etl.adopted.messages bigint not null
etl.adopted.plain_values bigint not null
etl.adopted.tokens bigint not null default 0
etl.expired_logins.day date not null
etl.expired_logins.logins bigint not null
etl.ledger.sent_on date not null
etl.ledger.message_id text collate C not null
etl.ledger_default.sent_on date not null
etl.ledger_default.message_id text collate C not null
etl.ledger_totals.sent_on date not null
etl.ledger_totals.messages bigint not null
etl.migrations.id bigint not null generated always as identity
etl.migrations.step integer not null
etl.migrations.hash text not null
etl.migrations.written_in xid8 not null default pg_current_xact_id()
etl.migrations.routines integer not null
etl.migrations.relations_hash text not null
etl.migrations.relations_written_in xid8 not null default pg_current_xact_id()
etl.migrations.relations integer not null
etl.migrations.migrated_at timestamp with time zone not null default clock_timestamp()
etl.period_length.length text not null default 'month'::text
etl.periods.first date not null
etl.periods.until date not null
etl.periods.originals_expired_at timestamp with time zone
etl.periods.logins_expired_at timestamp with time zone
etl.periods.changes bigint not null default 0
etl.quarantine.message_id text collate C not null
etl.quarantine.sent_at timestamp with time zone not null
etl.quarantine.reason text not null
etl.quarantine.data_key uuid not null
etl.quarantine.sealed bytea
etl.quarantine.state text not null default 'open'::text
etl.quarantine.quarantined_at timestamp with time zone not null default clock_timestamp()
etl.quarantine.changed_at timestamp with time zone
etl.quarantine.changed_by text
etl.user_logins_default.user_id character varying(128)
etl.user_logins_default.device_type character varying(32)
etl.user_logins_default.masked_ip character varying(256)
etl.user_logins_default.masked_device_id character varying(256)
etl.user_logins_default.locale character varying(32)
etl.user_logins_default.app_version integer
etl.user_logins_default.create_date date
etl.user_logins_without_date.user_id character varying(128)
etl.user_logins_without_date.device_type character varying(32)
etl.user_logins_without_date.masked_ip character varying(256)
etl.user_logins_without_date.masked_device_id character varying(256)
etl.user_logins_without_date.locale character varying(32)
etl.user_logins_without_date.app_version integer
etl.user_logins_without_date.create_date date
etl.user_logins_without_period.user_id character varying(128)
etl.user_logins_without_period.device_type character varying(32)
etl.user_logins_without_period.masked_ip character varying(256)
etl.user_logins_without_period.masked_device_id character varying(256)
etl.user_logins_without_period.locale character varying(32)
etl.user_logins_without_period.app_version integer
etl.user_logins_without_period.create_date date
pii_vault.audit.id bigint not null generated always as identity
pii_vault.audit.at timestamp with time zone not null default clock_timestamp()
pii_vault.audit.login text not null default SESSION_USER
pii_vault.audit.login_oid oid not null
pii_vault.audit.action text not null
pii_vault.audit.request uuid
pii_vault.audit.tokens text[] not null default '{}'::text[]
pii_vault.audit.message_ids text[] not null default '{}'::text[]
pii_vault.audit.items integer not null
pii_vault.audit.reason text
pii_vault.audit.role text
pii_vault.audit.address text default host(inet_client_addr())
pii_vault.audit.details json
pii_vault.audit_chain."position" bigint not null
pii_vault.audit_chain.entry bigint not null
pii_vault.audit_chain.hash bytea not null
pii_vault.audit_head.chain uuid not null default gen_random_uuid()
pii_vault.audit_head."position" bigint not null
pii_vault.audit_head.hash bytea not null
pii_vault.audit_waiting.entry bigint not null
pii_vault.canaries.token text collate C not null
pii_vault.canaries.login text not null default SESSION_USER
pii_vault.canaries.added_at timestamp with time zone not null default clock_timestamp()
pii_vault.data_keys.id uuid not null
pii_vault.data_keys.generation integer not null
pii_vault.data_keys.wrapped bytea not null
pii_vault.data_keys.recipients text[] not null
pii_vault.data_keys.proof bytea not null
pii_vault.data_keys.created_by text not null default SESSION_USER
pii_vault.data_keys.created_at timestamp with time zone not null default clock_timestamp()
pii_vault.erasure_gate.nothing boolean not null
pii_vault.holds.id uuid not null default gen_random_uuid()
pii_vault.holds.token text collate C
pii_vault.holds.user_id text collate C
pii_vault.holds.reason text not null
pii_vault.holds.added_by text not null default SESSION_USER
pii_vault.holds.added_at timestamp with time zone not null default clock_timestamp()
pii_vault.holds.released_by text
pii_vault.holds.released_at timestamp with time zone
pii_vault.holds.release_reason text
pii_vault.key_generations.generation integer not null
pii_vault.key_generations.key_check bytea not null
pii_vault.key_generations.registered_by text not null default SESSION_USER
pii_vault.key_generations.registered_at timestamp with time zone not null default clock_timestamp()
pii_vault.originals.token text collate C not null
pii_vault.originals.period date not null
pii_vault.originals.data_key uuid not null
pii_vault.originals.sealed bytea not null
pii_vault.originals.sealed_at timestamp with time zone not null default clock_timestamp()
pii_vault.originals_default.token text collate C not null
pii_vault.originals_default.period date not null
pii_vault.originals_default.data_key uuid not null
pii_vault.originals_default.sealed bytea not null
pii_vault.originals_default.sealed_at timestamp with time zone not null default clock_timestamp()
pii_vault.policies.field text not null
pii_vault.policies.reason_required boolean not null default false
pii_vault.policies.purposes text[] not null default '{}'::text[]
pii_vault.policies.hourly integer
pii_vault.policies.daily integer
pii_vault.policies.approval boolean not null default false
pii_vault.policies.request_seconds integer not null default 900
pii_vault.policies.approval_seconds integer not null default 900
pii_vault.policies.erased_may_return boolean not null default false
pii_vault.requests.id uuid not null default gen_random_uuid()
pii_vault.requests.kind text not null
pii_vault.requests.login text not null default SESSION_USER
pii_vault.requests.login_oid oid not null
pii_vault.requests.subjects text[] not null
pii_vault.requests.recorded_at timestamp with time zone not null default clock_timestamp()
pii_vault.requests.recorded_xid xid8 not null default pg_current_xact_id()
pii_vault.requests.reason text
pii_vault.requests.purpose text
pii_vault.requests.break_glass boolean not null default false
pii_vault.requests.approval text not null default 'none'::text
pii_vault.requests.refusal text
pii_vault.requests.refusal_detail text
pii_vault.requests.request_seconds integer not null default 900
pii_vault.requests.approval_seconds integer not null default 900
pii_vault.requests.ip_tokens integer not null default 0
pii_vault.requests.device_tokens integer not null default 0
pii_vault.requests.bodies integer not null default 0
pii_vault.reviews.request uuid not null
pii_vault.reviews.login text not null default SESSION_USER
pii_vault.reviews.login_oid oid not null
pii_vault.reviews.reviewed_at timestamp with time zone not null default clock_timestamp()
pii_vault.spenders.login_oid oid not null
pii_vault.spenders.requests bigint not null default 1
pii_vault.tombstones.token text collate C not null
pii_vault.tombstones.erasure uuid not null
pii_vault.tombstones.erased_at timestamp with time zone not null default clock_timestamp()
pii_vault.verdicts.request uuid not null
pii_vault.verdicts.approved boolean not null
pii_vault.verdicts.login text not null default SESSION_USER
pii_vault.verdicts.login_oid oid not null
pii_vault.verdicts.decided_at timestamp with time zone not null default clock_timestamp()
public.user_logins.user_id character varying(128)
public.user_logins.device_type character varying(32)
public.user_logins.masked_ip character varying(256)
public.user_logins.masked_device_id character varying(256)
public.user_logins.locale character varying(32)
public.user_logins.app_version integer
public.user_logins.create_date date

-- tables

table etl.adopted owner veil_owner
table etl.expired_logins owner veil_owner
table etl.ledger owner veil_owner partition by RANGE (sent_on)
table etl.ledger_default owner veil_owner partition DEFAULT
table etl.ledger_totals owner veil_owner
table etl.migrations owner veil_owner
table etl.period_length owner veil_owner
table etl.periods owner veil_owner
table etl.quarantine owner veil_owner
table etl.user_logins_default owner veil_owner partition by LIST (((create_date IS NULL))) partition DEFAULT
table etl.user_logins_without_date owner veil_owner partition FOR VALUES IN (true)
table etl.user_logins_without_period owner veil_owner partition FOR VALUES IN (false)
table pii_vault.audit owner veil_owner
table pii_vault.audit_chain owner veil_owner
table pii_vault.audit_head owner veil_owner
table pii_vault.audit_waiting owner veil_owner
table pii_vault.canaries owner veil_owner
table pii_vault.data_keys owner veil_owner
table pii_vault.erasure_gate owner veil_owner
table pii_vault.holds owner veil_owner
table pii_vault.key_generations owner veil_owner
view pii_vault.occurrences owner veil_owner
table pii_vault.originals owner veil_owner partition by RANGE (period)
table pii_vault.originals_default owner veil_owner partition DEFAULT
table pii_vault.policies owner veil_owner
table pii_vault.requests owner veil_owner
table pii_vault.reviews owner veil_owner
table pii_vault.spenders owner veil_owner
table pii_vault.tombstones owner veil_owner
table pii_vault.verdicts owner veil_owner
table public.user_logins owner veil_owner partition by RANGE (create_date)
view public.user_logins_per_token_and_day owner veil_owner
view public.user_logins_shared_tokens owner veil_owner

-- constraints

etl.adopted adopted_day UNIQUE (day)
etl.adopted adopted_plain_values CHECK ((plain_values >= 0))
etl.adopted adopted_tokens CHECK ((tokens >= 0))
etl.expired_logins expired_logins_key PRIMARY KEY (day)
etl.expired_logins expired_logins_logins CHECK ((logins > 0))
etl.ledger ledger_key PRIMARY KEY (sent_on, message_id)
etl.ledger ledger_message_id CHECK (((char_length(message_id) >= 1) AND (char_length(message_id) <= 128)))
etl.ledger_default ledger_default_pkey PRIMARY KEY (sent_on, message_id)
etl.ledger_default ledger_message_id CHECK (((char_length(message_id) >= 1) AND (char_length(message_id) <= 128)))
etl.ledger_totals ledger_totals_key PRIMARY KEY (sent_on)
etl.ledger_totals ledger_totals_messages CHECK ((messages > 0))
etl.migrations migrations_hash CHECK ((hash ~ '^[0-9a-f]{64}$'::text))
etl.migrations migrations_key PRIMARY KEY (id)
etl.migrations migrations_step CHECK ((step > 0))
etl.period_length period_length_key PRIMARY KEY (length)
etl.period_length period_length_length CHECK ((length = ANY (ARRAY['month'::text, 'week'::text, 'day'::text])))
etl.periods periods_apart EXCLUDE USING gist (daterange(first, until) WITH &&)
etl.periods periods_key PRIMARY KEY (first)
etl.periods periods_range CHECK ((first < until))
etl.periods periods_until UNIQUE (until)
etl.quarantine quarantine_key PRIMARY KEY (message_id)
etl.quarantine quarantine_message_id CHECK (((char_length(message_id) >= 1) AND (char_length(message_id) <= 128)))
etl.quarantine quarantine_reason CHECK (((char_length(reason) >= 1) AND (char_length(reason) <= 500)))
etl.quarantine quarantine_sealed CHECK (((sealed IS NOT NULL) = (state = 'open'::text)))
etl.quarantine quarantine_state CHECK ((state = ANY (ARRAY['open'::text, 'replayed'::text, 'discarded'::text])))
etl.user_logins_without_date user_logins_without_date CHECK ((create_date IS NULL))
pii_vault.audit audit_action CHECK ((action ~ '^[a-z]+\.[a-z]+$'::text))
pii_vault.audit audit_key PRIMARY KEY (id)
pii_vault.audit audit_reason CHECK ((char_length(reason) <= 1000))
pii_vault.audit_chain audit_chain_entry UNIQUE (entry)
pii_vault.audit_chain audit_chain_hash CHECK ((octet_length(hash) = 32))
pii_vault.audit_chain audit_chain_key PRIMARY KEY ("position")
pii_vault.audit_chain audit_chain_position CHECK (("position" > 0))
pii_vault.audit_head audit_head_hash CHECK ((octet_length(hash) = 32))
pii_vault.audit_head audit_head_key PRIMARY KEY (chain)
pii_vault.audit_waiting audit_waiting_key PRIMARY KEY (entry)
pii_vault.canaries canaries_key PRIMARY KEY (token)
pii_vault.data_keys data_keys_generation CHECK ((generation > 0))
pii_vault.data_keys data_keys_key PRIMARY KEY (id)
pii_vault.data_keys data_keys_proof CHECK ((octet_length(proof) = 32))
pii_vault.data_keys data_keys_recipients CHECK ((cardinality(recipients) > 0))
pii_vault.data_keys data_keys_wrapped CHECK (((octet_length(wrapped) >= 100) AND (octet_length(wrapped) <= 1048576)))
pii_vault.erasure_gate erasure_gate_empty CHECK (false)
pii_vault.erasure_gate erasure_gate_key PRIMARY KEY (nothing)
pii_vault.holds holds_key PRIMARY KEY (id)
pii_vault.holds holds_released CHECK ((((released_at IS NULL) = (released_by IS NULL)) AND ((released_at IS NULL) = (release_reason IS NULL))))
pii_vault.holds holds_subject CHECK (((token IS NULL) <> (user_id IS NULL)))
pii_vault.holds holds_token CHECK ((token ~ '^(ip|dev)[1-9][0-9]*_[a-z2-7]{25}[aeimquy4]$'::text))
pii_vault.holds holds_user_id CHECK (((char_length(user_id) >= 1) AND (char_length(user_id) <= 128)))
pii_vault.key_generations key_generations_generation CHECK ((generation > 0))
pii_vault.key_generations key_generations_key PRIMARY KEY (generation)
pii_vault.key_generations key_generations_key_check CHECK ((octet_length(key_check) = 8))
pii_vault.originals originals_key PRIMARY KEY (token, period)
pii_vault.originals originals_sealed CHECK (((octet_length(sealed) >= 44) AND (octet_length(sealed) <= 1068) AND ((octet_length(sealed) % 16) = 12)))
pii_vault.originals originals_token CHECK (((token ~ '^(ip|dev)[1-9][0-9]*_[a-z2-7]+[aeimquy4]$'::text) AND (substr(token, (octet_length(token) - 26), 1) = '_'::text)))
pii_vault.originals_default originals_default_pkey PRIMARY KEY (token, period)
pii_vault.originals_default originals_sealed CHECK (((octet_length(sealed) >= 44) AND (octet_length(sealed) <= 1068) AND ((octet_length(sealed) % 16) = 12)))
pii_vault.originals_default originals_token CHECK (((token ~ '^(ip|dev)[1-9][0-9]*_[a-z2-7]+[aeimquy4]$'::text) AND (substr(token, (octet_length(token) - 26), 1) = '_'::text)))
pii_vault.policies policies_approval_seconds CHECK (((approval_seconds >= 60) AND (approval_seconds <= 2592000)))
pii_vault.policies policies_body CHECK (((field <> 'body'::text) OR ((purposes = '{}'::text[]) AND (NOT erased_may_return))))
pii_vault.policies policies_daily CHECK ((daily >= 0))
pii_vault.policies policies_field CHECK ((field = ANY (ARRAY['ip'::text, 'device_id'::text, 'body'::text])))
pii_vault.policies policies_hourly CHECK ((hourly >= 0))
pii_vault.policies policies_key PRIMARY KEY (field)
pii_vault.policies policies_purposes CHECK (((cardinality(purposes) <= 50) AND (COALESCE(array_position(purposes, NULL::text), 0) = 0) AND (array_to_string(purposes, ' '::text) ~ '^([a-z][a-z0-9-]{0,31}( |$))*$'::text)))
pii_vault.policies policies_request_seconds CHECK (((request_seconds >= 60) AND (request_seconds <= 2592000)))
pii_vault.requests requests_approval CHECK ((approval = ANY (ARRAY['none'::text, 'needed'::text, 'skipped'::text])))
pii_vault.requests requests_key PRIMARY KEY (id)
pii_vault.requests requests_kind CHECK ((kind = ANY (ARRAY['reveal'::text, 'show'::text, 'replay'::text])))
pii_vault.reviews reviews_key PRIMARY KEY (request)
pii_vault.spenders spenders_key PRIMARY KEY (login_oid)
pii_vault.tombstones tombstones_key PRIMARY KEY (token)
pii_vault.tombstones tombstones_token CHECK (((token ~ '^(ip|dev)[1-9][0-9]*_[a-z2-7]+[aeimquy4]$'::text) AND (substr(token, (octet_length(token) - 26), 1) = '_'::text)))
pii_vault.verdicts verdicts_key PRIMARY KEY (request)

-- indexes

CREATE UNIQUE INDEX adopted_day ON etl.adopted USING btree (day)
CREATE UNIQUE INDEX expired_logins_key ON etl.expired_logins USING btree (day)
CREATE UNIQUE INDEX ledger_key ON ONLY etl.ledger USING btree (sent_on, message_id)
CREATE UNIQUE INDEX ledger_default_pkey ON etl.ledger_default USING btree (sent_on, message_id)
CREATE UNIQUE INDEX ledger_totals_key ON etl.ledger_totals USING btree (sent_on)
CREATE UNIQUE INDEX migrations_key ON etl.migrations USING btree (id)
CREATE UNIQUE INDEX period_length_key ON etl.period_length USING btree (length)
CREATE UNIQUE INDEX period_length_only ON etl.period_length USING btree ((true))
CREATE INDEX periods_apart ON etl.periods USING gist (daterange(first, until))
CREATE UNIQUE INDEX periods_key ON etl.periods USING btree (first)
CREATE UNIQUE INDEX periods_until ON etl.periods USING btree (until)
CREATE UNIQUE INDEX quarantine_key ON etl.quarantine USING btree (message_id)
CREATE INDEX quarantine_open ON etl.quarantine USING btree (sent_at) WHERE (state = 'open'::text)
CREATE INDEX user_logins_default_create_date_idx ON ONLY etl.user_logins_default USING brin (create_date)
CREATE INDEX user_logins_default_masked_device_id_idx ON ONLY etl.user_logins_default USING btree (masked_device_id)
CREATE INDEX user_logins_default_masked_ip_idx ON ONLY etl.user_logins_default USING btree (masked_ip)
CREATE INDEX user_logins_default_user_id_idx ON ONLY etl.user_logins_default USING btree (user_id)
CREATE INDEX user_logins_without_date_create_date_idx ON etl.user_logins_without_date USING brin (create_date)
CREATE INDEX user_logins_without_date_masked_device_id_idx ON etl.user_logins_without_date USING btree (masked_device_id)
CREATE INDEX user_logins_without_date_masked_ip_idx ON etl.user_logins_without_date USING btree (masked_ip)
CREATE INDEX user_logins_without_date_user_id_idx ON etl.user_logins_without_date USING btree (user_id)
CREATE INDEX user_logins_without_period_create_date_idx ON etl.user_logins_without_period USING brin (create_date)
CREATE INDEX user_logins_without_period_masked_device_id_idx ON etl.user_logins_without_period USING btree (masked_device_id)
CREATE INDEX user_logins_without_period_masked_ip_idx ON etl.user_logins_without_period USING btree (masked_ip)
CREATE INDEX user_logins_without_period_user_id_idx ON etl.user_logins_without_period USING btree (user_id)
CREATE INDEX audit_alarms ON pii_vault.audit USING btree (at) WHERE (action = 'canary.alarm'::text)
CREATE INDEX audit_at ON pii_vault.audit USING btree (at)
CREATE UNIQUE INDEX audit_key ON pii_vault.audit USING btree (id)
CREATE UNIQUE INDEX audit_chain_entry ON pii_vault.audit_chain USING btree (entry)
CREATE UNIQUE INDEX audit_chain_key ON pii_vault.audit_chain USING btree ("position")
CREATE UNIQUE INDEX audit_head_key ON pii_vault.audit_head USING btree (chain)
CREATE UNIQUE INDEX audit_head_only ON pii_vault.audit_head USING btree ((true))
CREATE UNIQUE INDEX audit_waiting_key ON pii_vault.audit_waiting USING btree (entry)
CREATE UNIQUE INDEX canaries_key ON pii_vault.canaries USING btree (token)
CREATE UNIQUE INDEX data_keys_key ON pii_vault.data_keys USING btree (id)
CREATE UNIQUE INDEX erasure_gate_key ON pii_vault.erasure_gate USING btree (nothing)
CREATE UNIQUE INDEX holds_key ON pii_vault.holds USING btree (id)
CREATE INDEX holds_open ON pii_vault.holds USING btree (token, user_id) WHERE (released_at IS NULL)
CREATE UNIQUE INDEX key_generations_key ON pii_vault.key_generations USING btree (generation)
CREATE UNIQUE INDEX originals_key ON ONLY pii_vault.originals USING btree (token, period)
CREATE UNIQUE INDEX originals_default_pkey ON pii_vault.originals_default USING btree (token, period)
CREATE UNIQUE INDEX policies_key ON pii_vault.policies USING btree (field)
CREATE INDEX requests_break_glass ON pii_vault.requests USING btree (recorded_at) WHERE break_glass
CREATE UNIQUE INDEX requests_key ON pii_vault.requests USING btree (id)
CREATE INDEX requests_of_login ON pii_vault.requests USING btree (login_oid, recorded_at)
CREATE INDEX requests_waiting ON pii_vault.requests USING btree (recorded_at) WHERE (approval = 'needed'::text)
CREATE UNIQUE INDEX reviews_key ON pii_vault.reviews USING btree (request)
CREATE UNIQUE INDEX spenders_key ON pii_vault.spenders USING btree (login_oid)
CREATE INDEX tombstones_erasure ON pii_vault.tombstones USING btree (erasure)
CREATE UNIQUE INDEX tombstones_key ON pii_vault.tombstones USING btree (token)
CREATE UNIQUE INDEX verdicts_key ON pii_vault.verdicts USING btree (request)
CREATE INDEX user_logins_create_date_idx ON ONLY public.user_logins USING brin (create_date)
CREATE INDEX user_logins_masked_device_id_idx ON ONLY public.user_logins USING btree (masked_device_id)
CREATE INDEX user_logins_masked_ip_idx ON ONLY public.user_logins USING btree (masked_ip)
CREATE INDEX user_logins_user_id_idx ON ONLY public.user_logins USING btree (user_id)

-- triggers

CREATE TRIGGER audit_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON pii_vault.audit FOR EACH STATEMENT EXECUTE FUNCTION pii_vault.refuse_change()
CREATE TRIGGER audit_awaits_chaining AFTER INSERT ON pii_vault.audit FOR EACH ROW EXECUTE FUNCTION pii_vault.await_chaining()
CREATE TRIGGER audit_is_utf8 BEFORE INSERT ON pii_vault.audit FOR EACH ROW EXECUTE FUNCTION pii_vault.clean_entry()
CREATE TRIGGER audit_chain_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON pii_vault.audit_chain FOR EACH STATEMENT EXECUTE FUNCTION pii_vault.refuse_change()
CREATE TRIGGER audit_head_moves_on BEFORE UPDATE ON pii_vault.audit_head FOR EACH ROW EXECUTE FUNCTION pii_vault.refuse_step_back()
CREATE TRIGGER audit_head_stays BEFORE DELETE OR TRUNCATE ON pii_vault.audit_head FOR EACH STATEMENT EXECUTE FUNCTION pii_vault.refuse_change()
CREATE TRIGGER holds_kept BEFORE DELETE OR TRUNCATE ON pii_vault.holds FOR EACH STATEMENT EXECUTE FUNCTION pii_vault.refuse_change()
CREATE TRIGGER requests_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON pii_vault.requests FOR EACH STATEMENT EXECUTE FUNCTION pii_vault.refuse_change()
CREATE TRIGGER reviews_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON pii_vault.reviews FOR EACH STATEMENT EXECUTE FUNCTION pii_vault.refuse_change()
CREATE TRIGGER tombstones_final BEFORE UPDATE OR TRUNCATE ON pii_vault.tombstones FOR EACH STATEMENT EXECUTE FUNCTION pii_vault.refuse_change()
CREATE TRIGGER verdicts_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON pii_vault.verdicts FOR EACH STATEMENT EXECUTE FUNCTION pii_vault.refuse_change()

-- rules



-- views

pii_vault.occurrences as
 SELECT field,
    token,
    user_id,
    create_date,
    partition,
    place
   FROM ( SELECT 'ip'::text AS text,
            (masked_ip)::text AS masked_ip,
            (user_id)::text AS user_id,
            create_date,
            tableoid,
            ctid
           FROM public.user_logins l
        UNION ALL
         SELECT 'device_id'::text AS text,
            (masked_device_id)::text AS masked_device_id,
            (user_id)::text AS user_id,
            create_date,
            tableoid,
            ctid
           FROM public.user_logins l) o(field, token, user_id, create_date, partition, place)
  WHERE (token IS NOT NULL);

public.user_logins_per_token_and_day as
 SELECT field,
    token,
    create_date,
    count(*) AS logins,
    count(DISTINCT user_id) AS users
   FROM pii_vault.occurrences o
  GROUP BY token, field, create_date;

public.user_logins_shared_tokens as
 SELECT field,
    token,
    count(DISTINCT user_id) AS users,
    count(*) AS logins,
    min(create_date) AS first_day,
    max(create_date) AS last_day
   FROM pii_vault.occurrences o
  GROUP BY token, field
 HAVING (count(DISTINCT user_id) > 1);

-- functions

CREATE OR REPLACE FUNCTION etl.app_version_text(app_version integer)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE STRICT
RETURN ((((((app_version / 1000000))::text || '.'::text) || (((app_version / 1000) % 1000))::text) || '.'::text) || ((app_version % 1000))::text)
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.check_bodies_have_data_keys(OUT checked bigint, OUT offenders bigint, OUT examples text[])
 RETURNS record
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  with lost as (
    select q.message_id from etl.quarantine q
    where q.sealed is not null
      and not exists (select from pii_vault.data_keys k where k.id = q.data_key)
  )
  select
    (select count(*) from etl.quarantine q where q.sealed is not null),
    (select count(*) from lost),
    array(select l.message_id::text from lost l order by l.message_id limit 5)
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.check_data_keys_are_whole(OUT checked bigint, OUT offenders bigint, OUT examples text[])
 RETURNS record
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  -- The header of a binary age file ends with its MAC, after which come a nonce of 16 bytes and the data key's 32
  -- with their tag. Every stanza of the header is somebody who can open it.
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
  judged as (
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
    (select count(*) from judged),
    (select count(j.what) from judged j),
    array(
      select format('%s: %s', j.id, j.what) from judged j where j.what is not null order by j.id limit 5
    )
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.check_days_add_up(OUT checked bigint, OUT offenders bigint, OUT examples text[])
 RETURNS record
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.check_erased_stay_erased(OUT checked bigint, OUT offenders bigint, OUT examples text[])
 RETURNS record
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  with back as (
    select s.token from pii_vault.tombstones s
    where exists (select from pii_vault.originals v where v.token = s.token)
    union
    select s.token from pii_vault.tombstones s
    join pii_vault.occurrences o on o.token collate "C" = s.token
  )
  select
    (select count(*) from pii_vault.tombstones),
    (select count(*) from back),
    array(select b.token::text from back b order by b.token limit 5)
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.check_erasures_are_on_record(OUT checked bigint, OUT offenders bigint, OUT examples text[])
 RETURNS record
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.check_invariant(invariant text)
 RETURNS TABLE(checked bigint, offenders bigint, examples text[])
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.check_key(generation integer, key_check bytea, register boolean)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  known bytea;
begin
  if check_key.generation is null or check_key.key_check is null then
    raise exception using errcode = 'VL010', message = 'a load names its token key: generation and check';
  end if;
  select g.key_check into known
  from pii_vault.key_generations g where g.generation = check_key.generation;
  if not found and register then
    -- Rare (once in the life of a database), so a lock that lets one in at a time may cost something.
    lock table pii_vault.key_generations in share row exclusive mode;
    if not exists (select from pii_vault.key_generations) then
      insert into pii_vault.key_generations (generation, key_check)
      values (check_key.generation, check_key.key_check);
    end if;
    select g.key_check into known
    from pii_vault.key_generations g where g.generation = check_key.generation;
  end if;
  if known is null then
    if register or exists (select from pii_vault.key_generations) then
      raise exception using
        errcode = 'VL011',
        message = format('token key generation %s is not registered in this database', generation),
        hint = 'use the token key that the other hosts use; changing it is not possible yet';
    end if;
  elsif known is distinct from key_check then
    raise exception using
      errcode = 'VL010',
      message = format('this is not the token key that generation %s was registered with', generation),
      hint = 'use the token key that the other hosts use; nothing was written';
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.check_messages_are_stored_once(OUT checked bigint, OUT offenders bigint, OUT examples text[])
 RETURNS record
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  with ids as (
    select l.message_id, count(*) as times from etl.ledger l group by l.message_id
  )
  select
    coalesce(sum(i.times), 0)::bigint,
    count(*) filter (where i.times > 1),
    coalesce((array_agg(i.message_id order by i.message_id) filter (where i.times > 1))[1:5], '{}')
  from ids i
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.check_nonces_are_used_once(OUT checked bigint, OUT offenders bigint, OUT examples text[])
 RETURNS record
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  with seals as (
    select o.data_key, o.sealed, o.token as place from pii_vault.originals o
    union all
    select q.data_key, q.sealed, q.message_id from etl.quarantine q where q.sealed is not null
  ),
  nonces as (
    select s.data_key, count(*) as times,
      count(*) > 1 and (
        min(s.digest) <> max(s.digest)
        or min(s.place) <> max(s.place)
      ) as is_used_twice
    from (
      select a.data_key, a.place, substring(a.sealed for 12) as nonce,
        hashtextextended(encode(a.sealed, 'hex') collate "C", 0) as digest
      from seals a
    ) s
    group by s.data_key, s.nonce
  )
  select
    coalesce(sum(n.times), 0)::bigint,
    coalesce(sum(n.times) filter (where n.is_used_twice), 0)::bigint,
    coalesce((array_agg(distinct n.data_key::text) filter (where n.is_used_twice))[1:5], '{}')
  from nonces n
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.check_originals_have_data_keys(OUT checked bigint, OUT offenders bigint, OUT examples text[])
 RETURNS record
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  with lost as (
    select o.token from pii_vault.originals o
    where not exists (select from pii_vault.data_keys k where k.id = o.data_key)
  )
  select
    (select count(*) from pii_vault.originals),
    (select count(*) from lost),
    array(select l.token::text from lost l order by l.token limit 5)
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.check_requests_are_on_record(OUT checked bigint, OUT offenders bigint, OUT examples text[])
 RETURNS record
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.check_tokens_have_originals(OUT checked bigint, OUT offenders bigint, OUT examples text[])
 RETURNS record
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  with lacking as (
    select v.day, v.value collate "C" as token, count(*) as amount
    from etl.rows_by_partition() r
    cross join lateral etl.values_without_original(r.partition) v
    where not r.is_expired
      and v.value collate "C" ~ case v.field
        when 'ip' then '^ip[1-9][0-9]*_[a-z2-7]{25}[aeimquy4]$'
        else '^dev[1-9][0-9]*_[a-z2-7]{25}[aeimquy4]$'
      end
      and not exists (
        select from etl.periods p
        where p.first = v.day and p.until = v.day + 1 and p.originals_expired_at is not null
      )
    group by v.day, v.value collate "C"
  ),
  lost as (
    select distinct l.token
    from (
      select d.day from (
        select g.day, g.amount from lacking g
        union all
        select a.day, -a.tokens from etl.adopted a where a.tokens > 0
      ) d
      group by d.day
      having sum(d.amount) > 0
    ) b
    join lacking l on l.day = b.day or (l.day is null and b.day is null)
  )
  select
    etl.count_values(),
    (select count(*) from lost),
    array(select l.token::text from lost l order by l.token limit 5)
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.check_values_are_tokens(OUT checked bigint, OUT offenders bigint, OUT examples text[])
 RETURNS record
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  with others as (
    select v.day, count(*) as amount
    from etl.rows_by_partition() r
    -- What has an original is a token. The form of each value would cost ten times this join.
    cross join lateral etl.values_without_original(r.partition) v
    where v.value collate "C" !~ case v.field
      when 'ip' then '^ip(0|[1-9][0-9]*)_[a-z2-7]{25}[aeimquy4]$'
      else '^dev(0|[1-9][0-9]*)_[a-z2-7]{25}[aeimquy4]$'
    end
    group by v.day
  ),
  broken as (
    select d.day, sum(d.plain)::bigint as plain
    from (
      select o.day, o.amount as plain from others o
      union all
      select a.day, -a.plain_values from etl.adopted a where a.plain_values > 0
    ) d
    group by d.day
    having sum(d.plain) > 0
  )
  select
    etl.count_values(),
    (select coalesce(sum(b.plain), 0)::bigint from broken b),
    array(
      select format('%s: %s values', etl.day_text(b.day), b.plain) from broken b order by b.day limit 5
    )
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.count_old_messages(today date)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  with gone as (
    delete from etl.ledger_default l where l.sent_on < today - 36 returning l.sent_on
  )
  insert into etl.ledger_totals as t (sent_on, messages)
  select g.sent_on, count(*) from gone g group by g.sent_on
  on conflict (sent_on) do update set messages = t.messages + excluded.messages;
exception when lock_not_available or deadlock_detected then
  null;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.count_values()
 RETURNS bigint
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select count(l.masked_ip) + count(l.masked_device_id) from public.user_logins l
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.day_text(day date)
 RETURNS text
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select case
    when day is null then 'without a date'
    when not isfinite(day) then day::text
    when day < '0001-01-01' then to_char(day, 'YYYY-MM-DD BC')
    else to_char(day, 'YYYY-MM-DD')
  end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.discard(message_ids text[], reason text)
 RETURNS integer
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  gone text[];
begin
  perform pii_vault.require_reason_length(discard.reason);
  perform pii_vault.require_message_ids(discard.message_ids);
  gone := etl.empty_bodies(discard.message_ids);
  if cardinality(gone) > 0 then
    perform pii_vault.record(
      'quarantine.discard', null, '{}', gone, cardinality(gone), discard.reason, null
    );
  end if;
  return cardinality(gone);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.drop_old_days(today date)
 RETURNS integer
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  old text[];
  partition text;
begin
  select coalesce(array_agg(c.relname::text order by c.relname), '{}') into old
  from pg_inherits i join pg_class c on c.oid = i.inhrelid
  where i.inhparent = 'etl.ledger'::regclass
    and c.relname ~ '^ledger_[0-9]{8}$'
    and to_date(right(c.relname, 8), 'YYYYMMDD') < today - 36;
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
  end loop;
  return cardinality(old);
exception when lock_not_available or deadlock_detected then
  return 0;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.empty_bodies(message_ids text[])
 RETURNS text[]
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  with locked as (
    select q.message_id
    from etl.quarantine q
    where q.message_id in (select unnest(message_ids)) and q.state = 'open'
    order by q.message_id
    for update
  ),
  discarded as (
    update etl.quarantine q
    set state = 'discarded', sealed = null, changed_at = clock_timestamp(), changed_by = session_user
    from locked
    where q.message_id = locked.message_id
    returning q.message_id
  )
  select coalesce(array_agg(d.message_id::text order by d.message_id), '{}') from discarded d
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.enter_ledger(message_ids text[], sent_ats timestamp with time zone[])
 RETURNS text[]
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  ids text[];
  days date[];
begin
  -- Ids are made distinct first: the same id twice in one batch would join back to two rows. Sorted, because
  -- overlapping loads that lock in one order cannot deadlock (unsorted, 95 of 160 did).
  select
    coalesce(array_agg(m.id order by m.sent_on, m.id), '{}'),
    coalesce(array_agg(m.sent_on order by m.sent_on, m.id), '{}')
  into ids, days
  from (
    select distinct on (b.id collate "C")
      b.id collate "C" as id, (b.sent_at at time zone interval '0')::date as sent_on
    from (select unnest(message_ids), unnest(sent_ats)) b (id, sent_at)
    order by b.id collate "C", b.sent_at
  ) m;
  -- Nearly always all of them are new, and then an insert that takes nothing else is half of the price of one that
  -- asks about each first (4.7 against 9).
  begin
    insert into etl.ledger (sent_on, message_id) select unnest(days), unnest(ids);
    return ids;
  exception when unique_violation then
    with stored as (
      insert into etl.ledger (sent_on, message_id) select unnest(days), unnest(ids)
      on conflict do nothing
      returning message_id
    )
    select coalesce(array_agg(s.message_id), '{}') into ids from stored s;
    return ids;
  end;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.expired_otherwise_than_recorded()
 RETURNS TABLE(what text)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.fetch_bodies(request uuid, purpose text)
 RETURNS TABLE(message_id text, sent_at timestamp with time zone, reason text, state text, data_key uuid, sealed bytea, wrapped bytea, proof bytea, generation integer)
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  admitted pii_vault.requests;
  served integer;
begin
  admitted := pii_vault.admit(fetch_bodies.request, fetch_bodies.purpose);
  return query
    select
      q.message_id::text, q.sent_at, q.reason, q.state, q.data_key, q.sealed, k.wrapped, k.proof,
      k.generation
    from unnest(admitted.subjects) as h (message_id)
    join etl.quarantine q on q.message_id = h.message_id
      and q.sealed is not null and q.quarantined_at < admitted.recorded_at
    left join pii_vault.data_keys k on k.id = q.data_key
    order by q.sent_at, q.message_id;
  get diagnostics served = row_count;
  -- Its caller can roll this back; the request he cannot.
  perform pii_vault.record('quarantine.fetch', admitted.id, '{}', '{}', served, null, null);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.first_without_period(first date, until date)
 RETURNS date
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select least(
    (
      select min(l.create_date) from etl.user_logins_without_period l
      where l.create_date >= first and l.create_date < until
    ),
    (
      select min(o.period) from pii_vault.originals_default o
      where o.period >= first and o.period < until
    )
  )
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.housekeep()
 RETURNS TABLE(created integer, dropped integer, periods integer)
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select created, dropped, periods from etl.housekeep_on(etl.utc_day(now()))
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.housekeep_on(today date)
 RETURNS TABLE(created integer, dropped integer, periods integer)
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET lock_timeout TO '250ms'
AS $function$
begin
  perform pii_vault.require_read_committed('housekeeping');
  -- Whoever calls this and goes without a word would keep loads and readers waiting.
  perform pii_vault.at_most('idle_in_transaction_session_timeout', '10s');
  created := 0;
  dropped := 0;
  periods := 0;
  -- One at a time; whoever comes second has nothing to do. A lock on a table of the owner's, because any login could
  -- hold an advisory one.
  begin
    lock table etl.migrations in exclusive mode nowait;
  exception when lock_not_available then
    return next;
    return;
  end;
  periods := etl.make_periods(today);
  -- The locks of that should not last longer, and those of the ledger's days would keep loads waiting beside them.
  if periods > 0 then
    return next;
    return;
  end if;
  perform etl.count_old_messages(today);
  dropped := etl.drop_old_days(today);
  -- First the days ahead, then those that messages may be coming for.
  created := etl.make_days(today + 2, today + 7, false);
  created := created + etl.make_days(today - 14, today + 1, true);
  return next;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.lacking_originals(period date, tokens text[])
 RETURNS text[]
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  lacking text[];
begin
  if cardinality(tokens) > 0 then
    execute format(
      'select array_agg(distinct g.token)
       from (select unnest($1)) g (token)
       -- One by one: the vault is large.
       where not exists (
         select from pii_vault.originals o where o.token = g.token and o.period = %L::date offset 0
       )',
      etl.day_text(period)
    ) into lacking using tokens;
  end if;
  return coalesce(lacking, '{}');
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.load(batch uuid, generation integer, key_check bytea, data_key uuid, wrapped bytea, recipients text[], proof bytea, tokens text[], sealed bytea[], message_ids text[], sent_ats timestamp with time zone[], user_ids text[], device_types text[], masked_ips text[], masked_device_ids text[], locales text[], app_versions integer[], rejected_ids text[], rejected_sent_ats timestamp with time zone[], rejected_reasons text[], rejected_bodies bytea[])
 RETURNS TABLE(batch_id uuid, loaded integer, duplicates integer, quarantined integer, new_originals integer, period_firsts date[], period_untils date[], today date)
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  rows_in integer := cardinality(message_ids);
  rejected_in integer := cardinality(rejected_ids);
  fresh text[];
begin
  perform pii_vault.require_read_committed('a load');
  -- A list of another length, or numbered otherwise than it is read, would mix up messages.
  if (
    etl.shape(message_ids) = format('[1:%s]', rows_in)
    and etl.shape(message_ids) = all (array[
      etl.shape(sent_ats), etl.shape(user_ids), etl.shape(device_types), etl.shape(masked_ips),
      etl.shape(masked_device_ids), etl.shape(locales), etl.shape(app_versions)
    ])
    and etl.shape(rejected_ids) = format('[1:%s]', rejected_in)
    and etl.shape(rejected_ids) = all (array[
      etl.shape(rejected_sent_ats), etl.shape(rejected_reasons), etl.shape(rejected_bodies)
    ])
    and etl.shape(tokens) = format('[1:%s]', cardinality(tokens))
    and etl.shape(tokens) = etl.shape(sealed)
    -- A day without end is in no period.
    and 'infinity' <> all (sent_ats || rejected_sent_ats) and '-infinity' <> all (sent_ats || rejected_sent_ats)
    and (etl.shape(recipients) = format('[1:%s]', cardinality(recipients))) is not false
  ) is not true then
    raise exception using
      errcode = 'VL014',
      message = 'an array of a load is null, no plain list, of another length than the others, or holds an endless time';
  end if;
  -- A stored message may be deleted from the queue at once.
  perform pii_vault.commit_to_disk();
  -- Its caller gives up after a minute and asks again. A load that still waited here then, for an administrator's
  -- lock say, would be one more waiting connection with each attempt.
  perform pii_vault.at_most('lock_timeout', '20s');
  -- Nor may one that has gone without a word keep erasures waiting.
  perform pii_vault.at_most('idle_in_transaction_session_timeout', '20s');
  lock table pii_vault.erasure_gate in row share mode;
  -- Plans are made once a session: one that was made for an empty vault must not read a full one through.
  perform set_config('enable_seqscan', 'off', true);

  perform etl.check_key(load.generation, load.key_check, rows_in + rejected_in > 0);
  fresh := etl.enter_ledger(message_ids || rejected_ids, sent_ats || rejected_sent_ats);
  if cardinality(fresh) > 0 and data_key is not null then
    perform etl.register_data_key(load.data_key, load.generation, wrapped, recipients, proof);
  end if;

  loaded := 0;
  new_originals := 0;
  period_firsts := '{}';
  period_untils := '{}';
  today := etl.utc_day(clock_timestamp());
  if cardinality(fresh) > 0 and rows_in > 0 then
    if cardinality(fresh) < rows_in + rejected_in then
      -- Only the fresh ones, each once, in the order of the batch: a FIFO queue's messages become rows in the order
      -- in which they were sent.
      select
        coalesce(array_agg(m.ip), '{}'), coalesce(array_agg(m.device), '{}'),
        coalesce(array_agg(m.user_id), '{}'), coalesce(array_agg(m.device_type), '{}'),
        coalesce(array_agg(m.locale), '{}'), coalesce(array_agg(m.version), '{}'),
        coalesce(array_agg(m.sent_at), '{}')
      into masked_ips, masked_device_ids, user_ids, device_types, locales, app_versions, sent_ats
      from (
        select * from (
          select distinct on (r.id collate "C") r.*
          from unnest(
            message_ids, sent_ats, user_ids, device_types, masked_ips, masked_device_ids, locales,
            app_versions
          ) with ordinality
            as r (id, sent_at, user_id, device_type, ip, device, locale, version, position)
          where r.id in (select unnest(fresh))
          order by r.id collate "C", r.sent_at, r.position
        ) distinct_rows
        order by position
      ) m;
    end if;
    select s.loaded, s.new_originals, s.firsts, s.untils
    into loaded, new_originals, period_firsts, period_untils
    from etl.store_rows(
      tokens, sealed, load.data_key, user_ids, device_types, masked_ips, masked_device_ids, locales,
      app_versions, sent_ats
    ) s;
  end if;

  quarantined := case when rejected_in > 0 then etl.quarantine_fresh(
    load.data_key, fresh, message_ids, rejected_ids, rejected_sent_ats, rejected_reasons, rejected_bodies
  ) else 0 end;
  batch_id := batch;
  duplicates := rows_in + rejected_in - loaded - quarantined;
  return next;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.make_days(first date, last date, near boolean)
 RETURNS integer
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  day date;
  missing date[];
  partition text;
  made integer := 0;
begin
  -- A day that has rows in the default partition keeps them there, all of its rows: each id is known there as well
  -- as anywhere, and they go when they are old.
  select coalesce(array_agg(first + n order by n), '{}') into missing
  from generate_series(0, last - first) n
  where to_regclass('etl.ledger_' || to_char(first + n, 'YYYYMMDD')) is null
    and not exists (select from etl.ledger_default l where l.sent_on = first + n);
  if cardinality(missing) > 0 then
    -- A load that has looked for its partition before this one is attached would go on to the default partition and
    -- be refused there (23514). So no load may be under way: they wait here, for a moment and after an idle week
    -- only. Nobody loads the days ahead.
    if near then
      lock table only etl.ledger in share row exclusive mode;
    end if;
    -- Before looking into it again: what a load has put there and not committed yet would not be seen, and a
    -- partition beside such rows is refused.
    lock table etl.ledger_default in access exclusive mode;
  end if;
  foreach day in array missing loop
    continue when exists (select from etl.ledger_default l where l.sent_on = day);
    partition := 'ledger_' || to_char(day, 'YYYYMMDD');
    -- Made apart and attached, because that locks the ledger only against other changes of its shape.
    -- "create table … partition of" would wait for every load, and make every load wait.
    execute format(
      'create table etl.%I (like etl.ledger including defaults including constraints)', partition
    );
    execute format(
      'alter table etl.ledger attach partition etl.%I for values from (%L) to (%L)',
      partition, day, day + 1
    );
    made := made + 1;
  end loop;
  return made;
exception when lock_not_available or deadlock_detected then
  return 0;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.make_logins_table(name text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  execute format(
    'create table etl.%I (
       like public.user_logins including defaults including constraints including indexes
     )',
    name
  );
  execute format('alter table etl.%I owner to veil_owner', name);
  execute format('alter table etl.%I replica identity full', name);
  perform etl.vacuum_early(format('etl.%I', name));
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.make_period(first date, until date)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  logins text := etl.partition_name('user_logins', first);
  originals text := etl.partition_name('originals', first);
begin
  perform pii_vault.make_originals_table(originals);
  execute format(
    'alter table pii_vault.originals attach partition pii_vault.%I for values from (%L) to (%L)',
    originals, etl.day_text(first), etl.day_text(until)
  );
  perform etl.make_logins_table(logins);
  execute format(
    'alter table public.user_logins attach partition etl.%I for values from (%L) to (%L)',
    logins, etl.day_text(first), etl.day_text(until)
  );
  insert into etl.periods (first, until) values (make_period.first, make_period.until);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.make_periods(today date)
 RETURNS integer
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  length text := (select l.length from etl.period_length l);
  made integer := 0;
  next date := date_trunc(length, (today - 35)::timestamp)::date;
  covered date;
  step record;
begin
  while next <= today + 14 loop
    select p.until into covered
    from etl.periods p where p.first <= next and next < p.until;
    if covered is null then
      select * into step
      from etl.try_period(
        next,
        least(etl.period_end(next, length), (select min(p.first) from etl.periods p where p.first > next))
      );
      made := made + step.made;
      next := step.next;
    else
      next := covered;
    end if;
  end loop;
  return made;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.partition_name(parent text, first date)
 RETURNS text
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select parent || '_' || to_char(first, 'YYYYMMDD')
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.period_end(first date, length text)
 RETURNS date
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select (date_trunc(length, first::timestamp) + ('1 ' || length)::interval)::date
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.period_of(day date)
 RETURNS date
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select coalesce(
    (
      select p.first
      from (
        select s.first, s.until from etl.periods s where s.first <= day order by s.first desc limit 1
      ) p
      where day < p.until
    ),
    day
  )
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.periods_of(days date[])
 RETURNS TABLE(first date, until date, is_expired boolean)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select distinct
    coalesce(p.first, d.day), coalesce(p.until, d.day + 1), p.originals_expired_at is not null
  from (select distinct unnest(days)) d (day)
  left join lateral (
    select s.first, s.until, s.originals_expired_at
    from etl.periods s where s.first <= d.day order by s.first desc limit 1
  ) p on d.day < p.until
  order by 1
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.quarantine_fresh(data_key uuid, fresh text[], row_ids text[], ids text[], sent_ats timestamp with time zone[], reasons text[], bodies bytea[])
 RETURNS integer
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  given integer;
  entered text[];
begin
  with wanted as (
    select distinct on (r.id collate "C") r.id, r.sent_at, r.reason, r.body
    from unnest(ids, sent_ats, reasons, bodies) as r (id, sent_at, reason, body)
    where r.id in (select unnest(fresh)) and r.id not in (select unnest(row_ids))
    order by r.id collate "C", r.sent_at
  ),
  stored as (
    insert into etl.quarantine (message_id, sent_at, reason, data_key, sealed)
    select w.id, w.sent_at, w.reason, quarantine_fresh.data_key, w.body from wanted w
    on conflict do nothing
    returning message_id
  )
  select (select count(*) from wanted), coalesce(array_agg(s.message_id), '{}')
  into given, entered
  from stored s;
  -- Known to the quarantine and not to the ledger: sent on another day than it was at first, or back after the
  -- ledger has forgotten it. A duplicate, then, and no stored message of this day.
  if cardinality(entered) < given then
    delete from etl.ledger l
    using unnest(ids, sent_ats) as r (id, sent_at)
    where l.sent_on = (r.sent_at at time zone interval '0')::date
      and l.message_id = r.id
      and r.id in (select unnest(fresh))
      and r.id not in (select unnest(entered))
      and r.id not in (select unnest(row_ids));
  end if;
  return cardinality(entered);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.register_data_key(id uuid, generation integer, wrapped bytea, recipients text[], proof bytea)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  insert into pii_vault.data_keys (id, generation, wrapped, recipients, proof)
  values (
    register_data_key.id, register_data_key.generation, register_data_key.wrapped,
    register_data_key.recipients, register_data_key.proof
  )
  on conflict do nothing;
  if not found and not exists (
    select from pii_vault.data_keys k
    where k.id = register_data_key.id
      and k.generation = register_data_key.generation
      and k.wrapped = register_data_key.wrapped
      and k.proof = register_data_key.proof
  ) then
    raise exception using errcode = 'VL012', message = 'another data key is registered under this id';
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.replay(request uuid, message_id text, generation integer, key_check bytea, data_key uuid, wrapped bytea, recipients text[], proof bytea, tokens text[], sealed bytea[], user_id text, device_type text, masked_ip text, masked_device_id text, locale text, app_version integer)
 RETURNS boolean
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  admitted pii_vault.requests;
  entry etl.quarantine;
begin
  perform pii_vault.require_read_committed('a replay');
  admitted := pii_vault.admit(replay.request, 'replay');
  if (replay.message_id = any (admitted.subjects)) is not true then
    raise exception using
      errcode = 'VL001', message = 'the request does not name this message';
  end if;
  perform pii_vault.at_most('lock_timeout', '20s');
  perform pii_vault.at_most('idle_in_transaction_session_timeout', '20s');
  lock table pii_vault.erasure_gate in row share mode;
  perform etl.check_key(replay.generation, replay.key_check, true);
  select q.* into entry
  from etl.quarantine q
  where q.message_id = replay.message_id and q.state = 'open'
  for update;
  if not found then
    return false;
  end if;
  if entry.quarantined_at >= admitted.recorded_at then
    raise exception using
      errcode = 'VL001', message = 'the request is older than the body that is quarantined now';
  end if;
  if replay.data_key is not null then
    perform etl.register_data_key(
      replay.data_key, replay.generation, replay.wrapped, replay.recipients, replay.proof
    );
  end if;
  -- What it held stands in the row: nothing of it is kept beside that.
  update etl.quarantine q
  set state = 'replayed', sealed = null, changed_at = clock_timestamp(), changed_by = session_user
  where q.message_id = replay.message_id;
  perform etl.store_rows(
    replay.tokens, replay.sealed, replay.data_key, array[replay.user_id], array[replay.device_type],
    array[replay.masked_ip], array[replay.masked_device_id], array[replay.locale],
    array[replay.app_version], array[entry.sent_at]
  );
  perform pii_vault.record(
    'quarantine.replayed', admitted.id, '{}', array[replay.message_id], 1, null, null
  );
  return true;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.request_bodies(message_ids text[], purpose text, reason text)
 RETURNS uuid
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  asked text[];
begin
  perform pii_vault.require_reason_length(reason);
  if purpose is null or purpose not in ('show', 'replay') then
    raise exception using errcode = 'VL006', message = 'expected the purpose show or replay';
  end if;
  perform pii_vault.require_message_ids(message_ids);
  if exists (
    select from unnest(message_ids) m (id) where id is null or char_length(id) not between 1 and 128
  ) then
    raise exception using
      errcode = 'VL006', message = 'one of the message ids is not of 1 to 128 characters';
  end if;
  asked := array(select distinct m.id from unnest(message_ids) m (id));
  return pii_vault.record_request(purpose, asked, reason, null, false);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.rows_by_partition()
 RETURNS TABLE(partition regclass, is_expired boolean)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select t.relid, p.originals_expired_at is not null
  from pg_partition_tree('public.user_logins') t
  left join etl.periods p
    on to_regclass(format('etl.%I', etl.partition_name('user_logins', p.first))) = t.relid
  where t.isleaf
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.schema_hash()
 RETURNS text
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select hash from etl.migrations order by id desc limit 1
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.schema_version()
 RETURNS integer
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select coalesce(max(step), 0) from etl.migrations
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.shape(list anyarray)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select coalesce(array_dims(list), format('[1:%s]', cardinality(list)))
  where list is not null
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.store_originals(period date, tokens text[], sealed bytea[], data_key uuid, masked_ips text[], masked_device_ids text[], OUT stored integer, OUT forgotten text[])
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  returning_now text[];
  lacking text[];
  absent text[];
begin
  stored := 0;
  forgotten := '{}';
  if cardinality(tokens) > 0 then
    if exists (select from pii_vault.tombstones) then
      select
        coalesce(array_agg(e.token) filter (where e.stays), '{}'),
        coalesce(array_agg(e.token) filter (where not e.stays), '{}')
      into forgotten, returning_now
      from pii_vault.erased_among(tokens) e
      where (e.token in (select unnest(masked_ips || masked_device_ids))) is true;
      if cardinality(returning_now) > 0 then
        -- In one order, so that two loads that bring the same back cannot deadlock.
        with locked as (
          select t.token from pii_vault.tombstones t
          where t.token = any (returning_now) order by t.token for update
        )
        delete from pii_vault.tombstones t using locked l where t.token = l.token;
      end if;
    end if;
    insert into pii_vault.originals (token, period, data_key, sealed)
    select o.token, store_originals.period, store_originals.data_key, o.sealed
    from (select unnest(tokens), unnest(store_originals.sealed)) o (token, sealed)
    -- "is true" has the planner hash the list, where it could choose a loop: it takes each for short.
    where (o.token in (select unnest(masked_ips || masked_device_ids))) is true
      and (o.token in (select unnest(forgotten))) is not true
    order by o.token collate "C"
    on conflict do nothing;
    get diagnostics stored = row_count;
  end if;
  -- Whoever deletes originals has locked out loads: what is there now is there when this commits.
  lacking := etl.lacking_originals(store_originals.period, array(
    select r.token
    from (select unnest(masked_ips || masked_device_ids)) r (token)
    where r.token is not null
      and (r.token in (select unnest(tokens))) is not true
  ));
  if cardinality(lacking) > 0 then
    absent := array(select e.token from pii_vault.erased_among(lacking) e where e.stays);
    -- What may come back has to be sent.
    if cardinality(absent) < cardinality(lacking) then
      raise exception using errcode = 'VL013', message = 'a row has a token without an original';
    end if;
    forgotten := forgotten || absent;
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.store_period(first date, until date, is_expired boolean, tokens text[], sealed bytea[], data_key uuid, user_ids text[], device_types text[], masked_ips text[], masked_device_ids text[], locales text[], app_versions integer[], days date[], OUT loaded integer, OUT new_originals integer)
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  forgotten text[];
begin
  if until <= etl.utc_day(clock_timestamp()) - 14 then
    update etl.periods p set changes = p.changes + 1 where p.first = store_period.first;
  end if;
  if is_expired then
    -- Its originals are gone for good: no row brings one back, or is left without.
    new_originals := 0;
    forgotten := masked_ips || masked_device_ids;
  else
    select s.stored, s.forgotten into new_originals, forgotten
    from etl.store_originals(first, tokens, sealed, store_period.data_key, masked_ips, masked_device_ids) s;
  end if;
  if cardinality(forgotten) > 0 then
    masked_ips := pii_vault.freshen('ip', masked_ips, forgotten);
    masked_device_ids := pii_vault.freshen('device_id', masked_device_ids, forgotten);
  end if;
  -- Elements come in the arrays' order, so rows stand in the order of the batch.
  insert into public.user_logins (
    user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
  )
  select r.*
  from (
    select
      unnest(user_ids), unnest(device_types), unnest(masked_ips), unnest(masked_device_ids),
      unnest(locales), unnest(app_versions), unnest(days)
  ) r;
  get diagnostics loaded = row_count;
  -- Otherwise a message would be deleted whose row is nowhere.
  if loaded is distinct from cardinality(user_ids) then
    raise exception using
      errcode = 'VL016',
      message = format('public.user_logins took %s of %s rows', loaded, cardinality(user_ids)),
      hint = 'a trigger or a rule on it drops rows: veil needs each of them stored';
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.store_rows(tokens text[], sealed bytea[], data_key uuid, user_ids text[], device_types text[], masked_ips text[], masked_device_ids text[], locales text[], app_versions integer[], sent_ats timestamp with time zone[], OUT loaded integer, OUT new_originals integer, OUT firsts date[], OUT untils date[])
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  days date[] := array(select (s.at at time zone interval '0')::date from unnest(sent_ats) s (at));
  period record;
  part record;
  done record;
begin
  loaded := 0;
  new_originals := 0;
  firsts := '{}';
  untils := '{}';
  -- In the order of the periods: loads that overlap lock in one order.
  for period in select * from etl.periods_of(days) loop
    if period.first <= all (days) and period.until > all (days) then
      -- Nearly always, and then no array is copied.
      select s.loaded, s.new_originals into done
      from etl.store_period(
        period.first, period.until, period.is_expired, tokens, sealed, data_key, user_ids, device_types,
        masked_ips, masked_device_ids, locales, app_versions, days
      ) s;
    else
      select
        array_agg(r.user_id) as user_ids, array_agg(r.device_type) as device_types,
        array_agg(r.ip) as ips, array_agg(r.device) as devices, array_agg(r.locale) as locales,
        array_agg(r.version) as versions, array_agg(r.day) as days
      into part
      from (
        select *
        from unnest(
          user_ids, device_types, masked_ips, masked_device_ids, locales, app_versions, days
        ) with ordinality as u (user_id, device_type, ip, device, locale, version, day, position)
        where u.day >= period.first and u.day < period.until
        order by u.position
      ) r;
      select s.loaded, s.new_originals into done
      from etl.store_period(
        period.first, period.until, period.is_expired, tokens, sealed, data_key, part.user_ids,
        part.device_types, part.ips, part.devices, part.locales, part.versions, part.days
      ) s;
    end if;
    loaded := loaded + done.loaded;
    new_originals := new_originals + done.new_originals;
    if not period.is_expired then
      firsts := firsts || period.first;
      untils := untils || period.until;
    end if;
  end loop;
  if loaded <> cardinality(sent_ats) then
    raise exception using
      errcode = 'VL016',
      message = format('the periods took %s of %s rows', loaded, cardinality(sent_ats)),
      hint = 'etl.periods is not as veil made it: compare it with a backup';
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.tombstones_without_entry()
 RETURNS TABLE(what text)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.try_period(first date, until date, OUT next date, OUT made integer)
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  stray date := etl.first_without_period(first, until);
begin
  made := 0;
  if stray = first then
    next := first + 1;
    return;
  end if;
  -- A load that has looked for its partition before this one is attached would go on to the default partition, and be
  -- refused there (23514). So none may be under way.
  lock table pii_vault.erasure_gate in exclusive mode;
  -- Before looking again: what a load has put there and not committed yet would not be seen.
  lock table pii_vault.originals_default, etl.user_logins_default in access exclusive mode;
  stray := etl.first_without_period(first, until);
  next := coalesce(stray, until);
  if stray = first then
    next := first + 1;
  else
    perform etl.make_period(first, next);
    made := 1;
  end if;
exception when lock_not_available or deadlock_detected then
  next := null;
  made := 0;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.utc_day(moment timestamp with time zone)
 RETURNS date
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select (moment at time zone interval '0')::date
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.vacuum_early(partition regclass)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  execute format(
    'alter table %s set (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 10000)',
    partition
  );
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION etl.values_without_original(partition regclass)
 RETURNS TABLE(day date, field text, value text)
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  period etl.periods;
begin
  select p.* into period from etl.periods p
  where to_regclass(format('etl.%I', etl.partition_name('user_logins', p.first)))
    = values_without_original.partition;
  return query execute format(
    'select v.* from (
       select l.create_date, t.field, t.value
       from %s l
       cross join lateral (
         values (''ip'', l.masked_ip::text), (''device_id'', l.masked_device_id::text)
       ) t (field, value)
       where t.value is not null
     ) v
     where not exists (
       select from pii_vault.originals o
       where o.token = v.value collate "C"
         and starts_with(o.token, case v.field when ''ip'' then ''ip'' else ''dev'' end)
         and %s
     )',
    values_without_original.partition,
    case
      when period.first is not null then format('o.period = %L::date', etl.day_text(period.first))
      when values_without_original.partition = 'etl.user_logins_without_period'::regclass
        then 'o.period = v.create_date'
      else 'true'
    end
  );
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.acting_role()
 RETURNS text
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select coalesce(
    nullif(current_setting('role'), 'none'),
    (
      select case when r.rolsuper then 'superuser' else (
        select string_agg(v.rolname::text, ',' order by v.rolname)
        from pg_roles v
        where v.rolname = any ('{veil_owner,veil_etl,veil_analyst,veil_revealer,veil_operator,veil_auditor,veil_policy,veil_approver,veil_breakglass,veil_eraser}'::name[])
          and pg_has_role(r.oid, v.oid, 'usage')
      ) end
      from pg_roles r where r.rolname = session_user
    )
  )
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.add_hold(token text, user_id text, reason text)
 RETURNS uuid
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  made pii_vault.holds;
begin
  if (add_hold.token is null) = (add_hold.user_id is null) then
    raise exception using errcode = 'VL006', message = 'a hold is of a token or of a user';
  end if;
  if add_hold.token is null then
    perform pii_vault.require_user_id(add_hold.user_id);
  elsif char_length(add_hold.token) > 64
    or add_hold.token !~ '^(ip|dev)[1-9][0-9]*_[a-z2-7]{25}[aeimquy4]$' then
    raise exception using errcode = 'VL006', message = 'expected a token that stands for an original';
  end if;
  perform pii_vault.require_reason(add_hold.reason);
  -- An erasure sees it, or was done before.
  perform pii_vault.close_gate();
  insert into pii_vault.holds (token, user_id, reason)
  values (add_hold.token, add_hold.user_id, btrim(add_hold.reason))
  returning * into made;
  perform pii_vault.record(
    'hold.added', null,
    case when made.token is null then '{}' else array[made.token::text] end, '{}',
    1, add_hold.reason, pii_vault.describe_hold(made)
  );
  return made.id;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.admit(request uuid, kind text)
 RETURNS pii_vault.requests
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  found_request pii_vault.requests;
  caller oid;
begin
  if pg_is_in_recovery() then
    raise exception using
      errcode = 'VL005',
      message = 'a standby serves no request',
      hint = 'connect to the primary';
  end if;
  caller := pii_vault.caller();
  select r.* into found_request
  from pii_vault.requests r
  where r.id = admit.request and r.kind = admit.kind
    and r.login = session_user
    and r.login_oid = caller;
  if not found then
    raise exception using
      errcode = 'VL001',
      message = 'no such request of this login',
      hint = 'record a request, commit, and fetch it as the same login';
  end if;
  -- Visible and of another transaction: committed, then. The top-level id, because a savepoint has an id (and an
  -- xmin) of its own.
  if found_request.recorded_xid is not distinct from pg_current_xact_id_if_assigned() then
    raise exception using
      errcode = 'VL002',
      message = 'the request was recorded by this very transaction, which may still be rolled back',
      hint = 'commit first, then fetch';
  end if;
  perform pii_vault.refuse_unready(found_request, pii_vault.state_of(found_request));
  perform pii_vault.require_read_committed('a fetch');
  perform pii_vault.require_flushed();
  return found_request;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.as_utf8(given text)
 RETURNS text
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  perform convert_to(given, 'UTF8');
  return given;
exception when character_not_in_repertoire or untranslatable_character then
  return 'not UTF-8: ' || md5(given);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.assess_tokens(tokens text[], most integer)
 RETURNS TABLE("position" bigint, token text, field text, logins bigint, users bigint, outcome text)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select a.place, a.token, pii_vault.field_of(a.token), a.logins, a.users,
    case
      when a.users > 1 then 'keep'
      -- A decoy is to nobody what the vault holds.
      when a.users = 0 and exists (select from pii_vault.canaries c where c.token = a.token)
        then 'unknown'
      when a.users = 1 and not starts_with(a.token, 'ip0_') and not starts_with(a.token, 'dev0_')
        then 'erase'
      when exists (select from pii_vault.originals o where o.token = a.token) then 'erase'
      when exists (select from pii_vault.tombstones t where t.token = a.token) then 'forgotten'
      else 'unknown'
    end
  from (
    select t.place, t.token, u.logins, u.users
    from (
      select min(g.place) as place, g.token
      from unnest(tokens) with ordinality g (token, place) group by g.token
    ) t
    cross join lateral pii_vault.users_of(t.token, most) u
    offset 0
  ) a
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.assess_user(user_id text, most integer)
 RETURNS TABLE(field text, value text, is_token boolean, logins bigint, others bigint)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select v.field, v.value, v.is_token, v.logins,
    case when not v.is_token then 0 else (
      select count(distinct coalesce(s.user_id, ''))
      from (
        select o.user_id from pii_vault.occurrences o
        where o.field = v.field and o.token = v.value
          and o.user_id is distinct from assess_user.user_id
        limit most
      ) s
    ) end
  from pii_vault.values_of_user(assess_user.user_id) v
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.at_most(setting text, most text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  -- 0 is for ever.
  if current_setting(setting) = '0' or current_setting(setting)::interval > most::interval then
    perform set_config(setting, most, true);
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.audit_entry_bytes(entry pii_vault.audit)
 RETURNS bytea
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.audit_list_bytes(list text[])
 RETURNS bytea
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.await_chaining()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  -- In conflict after a restore of the data alone.
  insert into pii_vault.audit_waiting (entry) values (new.id) on conflict do nothing;
  return null;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.break_glass(tokens text[], reason text, purpose text)
 RETURNS uuid
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select pii_vault.request_tokens(tokens, reason, nullif(btrim(purpose), ''), true)
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.bury(tokens text[], erasure uuid)
 RETURNS integer
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  originals integer;
begin
  delete from pii_vault.tombstones t where t.token = any (bury.tokens);
  with gone as (
    delete from pii_vault.originals o where o.token = any (bury.tokens) returning o.token
  )
  select count(distinct g.token) into originals from gone g;
  insert into pii_vault.tombstones (token, erasure)
  select u.token, bury.erasure
  from unnest(bury.tokens) u (token) order by u.token collate "C";
  return originals;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.caller()
 RETURNS oid
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  named oid := (select r.oid from pg_roles r where r.rolname = session_user);
begin
  if named is distinct from (
    select a.usesysid from pg_stat_get_activity(pg_backend_pid()) a
  ) then
    raise exception using
      errcode = 'VL034',
      message = 'this session goes by another login than the one that it connected as',
      hint = 'connect as the login itself; set session authorization does not do here';
  end if;
  return named;
end
$function$
-- owner veil_owner

CREATE OR REPLACE PROCEDURE pii_vault.chain_audit(INOUT chained integer DEFAULT 0)
 LANGUAGE plpgsql
AS $procedure$
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
$procedure$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.chain_waiting()
 RETURNS integer
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.clean_entry()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  perform convert_to(concat(new.login, new.role, new.reason, new.details), 'UTF8');
  return new;
exception when character_not_in_repertoire or untranslatable_character then
  new.login := pii_vault.as_utf8(new.login);
  new.role := pii_vault.as_utf8(new.role);
  new.reason := pii_vault.as_utf8(new.reason);
  if pii_vault.as_utf8(new.details::text) is distinct from new.details::text then
    new.details := json_build_object('withheld', 'not UTF-8');
  end if;
  return new;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.close_gate()
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  perform pii_vault.require_read_committed('an erasure');
  perform pii_vault.commit_to_disk();
  -- Loads wait behind whoever waits here; and behind a caller who has gone without a word.
  perform pii_vault.at_most('lock_timeout', '5s');
  perform pii_vault.at_most('idle_in_transaction_session_timeout', '10s');
  -- Token by token, also where nothing is known of the tables' sizes yet; and never by a plan that was made for a
  -- few tokens when there are many.
  perform set_config('enable_seqscan', 'off', true);
  perform set_config('plan_cache_mode', 'force_custom_plan', true);
  begin
    lock table pii_vault.erasure_gate in exclusive mode;
  exception when lock_not_available then
    raise exception using
      errcode = '55P03',
      message = 'a load, or another erasure, does not end; nothing was changed',
      hint = 'try again; pg_locks of pii_vault.erasure_gate names the session that holds it';
  end;
  -- An expiry that has looked at what is old, and not erased it yet, looks again.
  update etl.periods p set changes = p.changes + 1
  where p.until <= etl.utc_day(clock_timestamp()) - 14;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.commit_to_disk()
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  if current_setting('synchronous_commit') = 'off' then
    perform set_config('synchronous_commit', 'on', true);
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.copy_held_logins(first date, until date, old regclass, users text[], tokens text[], copy text)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  held bigint := 0;
begin
  execute format('drop table if exists etl.%I', copy);
  if cardinality(users) + cardinality(tokens) > 0 then
    perform etl.make_logins_table(copy);
    execute format(
      'insert into etl.%I (
         user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
       )
       select l.user_id, l.device_type, l.masked_ip, l.masked_device_id, l.locale, l.app_version, l.create_date
       from %s l
       where l.user_id = any ($1) or l.masked_ip = any ($2) or l.masked_device_id = any ($2)
       order by l.ctid',
      copy, old
    ) using users, tokens;
    get diagnostics held = row_count;
    if held = 0 then
      execute format('drop table etl.%I', copy);
    else
      execute format(
        'alter table etl.%I add constraint in_period
         check (create_date is not null and create_date >= %L and create_date < %L)',
        copy, etl.day_text(first), etl.day_text(until)
      );
    end if;
  end if;
  return held;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.copy_held_originals(first date, until date, old regclass, kept text[], copy text)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  held bigint := 0;
begin
  execute format('drop table if exists pii_vault.%I', copy);
  if cardinality(kept) > 0 then
    perform pii_vault.make_originals_table(copy);
    execute format(
      'insert into pii_vault.%I (token, period, data_key, sealed, sealed_at)
       select o.token, o.period, o.data_key, o.sealed, o.sealed_at
       from %s o where o.token = any ($1) order by o.token',
      copy, old
    ) using kept;
    get diagnostics held = row_count;
    if held = 0 then
      execute format('drop table pii_vault.%I', copy);
    else
      -- With it, attaching the copy does not read it through.
      execute format(
        'alter table pii_vault.%I add constraint in_period check (period >= %L and period < %L)',
        copy, etl.day_text(first), etl.day_text(until)
      );
    end if;
  end if;
  return held;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.count_by_field(tokens text[])
 RETURNS json
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select json_build_object(
    'ip', count(*) filter (where starts_with(t, 'ip')),
    'device_id', count(*) filter (where not starts_with(t, 'ip'))
  )
  from unnest(tokens) t
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.count_held_logins(period etl.periods, source regclass, users text[], tokens text[])
 RETURNS bigint
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  held bigint;
begin
  execute format(
    'select count(*) from %s l
     where (l.user_id = any ($1) or l.masked_ip = any ($2) or l.masked_device_id = any ($2))
       and l.create_date >= $3 and l.create_date < $4',
    source
  ) into held using users, tokens, period.first, period.until;
  return held;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.count_held_originals(period etl.periods, source regclass, kept text[])
 RETURNS bigint
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  held bigint;
begin
  execute format(
    'select count(*) from %s o where o.token = any ($1) and o.period >= $2 and o.period < $3', source
  ) into held using kept, period.first, period.until;
  return held;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.day_before(older_than integer)
 RETURNS date
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  if (older_than between 15 and 36500) is not true then
    raise exception using errcode = 'VL006', message = 'older_than is out of range, expected 15 to 36500 days';
  end if;
  return etl.utc_day(clock_timestamp()) - older_than;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.decide(request uuid, approve boolean, reason text)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  asked pii_vault.requests;
begin
  perform pii_vault.require_reason_length(decide.reason);
  if decide.approve is null then
    raise exception using errcode = 'VL006', message = 'expected a verdict';
  end if;
  asked := pii_vault.request_of_another(decide.request);
  if asked.approval <> 'needed' or asked.refusal is not null then
    raise exception using
      errcode = 'VL037', message = 'this request waits for no verdict';
  end if;
  -- Of two verdicts at once, the first one stands.
  insert into pii_vault.verdicts (request, approved, login_oid)
  select asked.id, decide.approve, pii_vault.caller()
  where pii_vault.state_of(asked) = 'waiting'
  on conflict do nothing;
  if not found then
    raise exception using
      errcode = 'VL037',
      message = 'this request has had its verdict, or has expired',
      hint = 'whoever made it can make a new one';
  end if;
  perform pii_vault.record(
    case when decide.approve then 'reveal.approved' else 'reveal.denied' end,
    asked.id, '{}', '{}', cardinality(asked.subjects), decide.reason,
    json_build_object('requester', asked.login)
  );
  perform pg_notify('veil_verdicts', asked.id::text);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.describe_hold(hold pii_vault.holds)
 RETURNS json
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select json_build_object(
    'hold', hold.id,
    'kind', case when hold.token is null then 'user' else 'token' end,
    'subject', coalesce(hold.token, pii_vault.user_digest(hold.user_id))
  )
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.drop_period(period etl.periods, old_originals regclass, logins regclass, with_rows boolean, run uuid, reason text, OUT entry bigint, OUT originals bigint, OUT rows bigint, OUT held_originals bigint, OUT held_rows bigint)
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  look record;
  is_idle boolean;
  outcome text;
begin
  for look_number in 1..5 loop
    select * into look
    from pii_vault.look_at_period(
      period.first, period.until, old_originals, logins, with_rows and logins is not null
    );
    originals := look.originals;
    "rows" := look."rows";
    held_originals := coalesce(look.held_originals, 0);
    held_rows := coalesce(look.held_rows, 0);
    is_idle := coalesce(originals, 0) + coalesce("rows", 0) = 0;
    -- Where anything goes, all that has not expired yet counts as expired, empty or not.
    if is_idle or (period.originals_expired_at is not null and originals = 0) then
      execute format(
        'drop table if exists pii_vault.%I', etl.partition_name('originals', period.first) || '_held'
      );
      originals := null;
    end if;
    if is_idle or (period.logins_expired_at is not null and "rows" = 0) then
      execute format(
        'drop table if exists etl.%I', etl.partition_name('user_logins', period.first) || '_held'
      );
      "rows" := null;
    end if;
    exit when is_idle;
    outcome := pii_vault.drop_when_free(
      period.first, period.until, case when originals is not null then old_originals end,
      case when "rows" is not null then logins end, look.changes
    );
    if outcome = 'done' then
      entry := pii_vault.record_expiry(
        period, originals, "rows", held_originals, held_rows,
        case when "rows" is not null then look.days end, run, reason
      );
      exit;
    end if;
  end loop;
  if outcome = 'changed' and not is_idle then
    raise exception using
      errcode = '55P03',
      message = format(
        'old logins and erasures kept changing the period that begins on %s; it is as it was',
        etl.day_text(period.first)
      ),
      hint = 'run it again';
  end if;
  originals := coalesce(originals, 0);
  "rows" := coalesce("rows", 0);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.drop_when_free(first date, until date, originals regclass, logins regclass, changes bigint)
 RETURNS text
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  started timestamptz := clock_timestamp();
  relations regclass[] := pii_vault.locks_of_drop(originals, logins);
  outcome text := 'busy';
  before text[] := '{}';
  now_there text[];
  told text[];
begin
  loop
    select coalesce(array_agg(w.transaction), '{}'), array_agg(w.told) filter (where w.transaction = any (before))
    into now_there, told
    from pii_vault.in_the_way(relations, false) w;
    if told is null then
      outcome := pii_vault.try_drop(
        first, until, relations, changes, originals is not null, logins is not null
      );
    end if;
    exit when outcome <> 'busy';
    if clock_timestamp() > started + interval '6 seconds' then
      perform pii_vault.refuse_busy(first, told, started);
    end if;
    before := now_there;
    perform pg_sleep(0.2);
  end loop;
  return outcome;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.erased_among(tokens text[])
 RETURNS TABLE(token text, stays boolean)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select g.token, not pii_vault.may_return(pii_vault.field_of(g.token))
  from (select unnest(tokens)) g (token)
  -- One by one: "offset 0" keeps the planner from joining instead.
  where exists (select from pii_vault.tombstones s where s.token = g.token offset 0)
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.exceeded_budget(caller oid, ip_tokens integer, device_tokens integer, bodies integer)
 RETURNS text
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  exceeded text;
begin
  if not exists (
    select from pii_vault.policies p where p.hourly is not null or p.daily is not null
  ) then
    return null;
  end if;
  insert into pii_vault.spenders as s (login_oid) values (exceeded_budget.caller)
  on conflict (login_oid) do update set requests = s.requests + 1;
  -- A statement of its own: its snapshot has what was committed while this one waited for the line.
  select case when s.hour + f.asked > p.hourly
    then format('%s %s an hour', p.hourly, f.what)
    else format('%s %s a day', p.daily, f.what)
  end
  into exceeded
  from (
    values ('ip', exceeded_budget.ip_tokens, 'tokens of ip'),
      ('device_id', exceeded_budget.device_tokens, 'tokens of device_id'),
      ('body', exceeded_budget.bodies, 'bodies')
  ) f (field, asked, what)
  join pii_vault.policies p on p.field = f.field
  cross join lateral (
    select
      coalesce(
        sum(u.tokens) filter (where u.recorded_at > clock_timestamp() - interval '1 hour'), 0
      ) as hour,
      coalesce(sum(u.tokens), 0) as day
    from (
      select r.recorded_at, case f.field
        when 'ip' then r.ip_tokens when 'device_id' then r.device_tokens else r.bodies
      end as tokens
      from pii_vault.requests r
      where r.login_oid = exceeded_budget.caller
        -- Not a day, which is as long as the caller's time zone says.
        and r.recorded_at > clock_timestamp() - interval '24 hours'
        and r.refusal is null
        and not exists (
          select from pii_vault.verdicts v where v.request = r.id and not v.approved
        )
    ) u
  ) s
  where f.asked > 0 and (s.hour + f.asked > p.hourly or s.day + f.asked > p.daily)
  limit 1;
  return exceeded;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.expire_bodies(older_than integer, run uuid, reason text, dry boolean)
 RETURNS TABLE(discarded integer, held integer)
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  day timestamptz :=
    pii_vault.day_before(expire_bodies.older_than)::timestamp at time zone interval '0';
  gone text[];
begin
  perform pii_vault.require_reason(expire_bodies.reason);
  if expire_bodies.run is null or expire_bodies.dry is null then
    raise exception using errcode = 'VL006', message = 'run or dry is null, expected an id, and true or false';
  end if;
  discarded := 0;
  held := 0;
  if not expire_bodies.dry then
    -- A hold that comes now waits for this, or this for it.
    perform pii_vault.close_gate();
  end if;
  if exists (select from pii_vault.holds h where h.released_at is null) then
    select count(*) into held from etl.quarantine q where q.state = 'open' and greatest(q.sent_at, q.quarantined_at) < day;
  elsif expire_bodies.dry then
    select count(*) into discarded from etl.quarantine q where q.state = 'open' and greatest(q.sent_at, q.quarantined_at) < day;
  else
    gone := etl.empty_bodies(array(
      select q.message_id from etl.quarantine q
      where q.state = 'open' and greatest(q.sent_at, q.quarantined_at) < day
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
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.expire_by_row(period etl.periods, with_originals boolean, with_rows boolean, run uuid, reason text, OUT entry bigint, OUT originals bigint, OUT rows bigint, OUT held_originals bigint, OUT held_rows bigint)
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  found_places record;
  held record;
  days json;
begin
  select * into found_places from pii_vault.expiring_places(period, with_originals, with_rows);
  if cardinality(found_places.originals) + cardinality(found_places.logins) > 0 then
    perform pii_vault.drop_when_free(period.first, period.until, null, null, null);
  end if;
  perform set_config('enable_seqscan', 'off', true);
  select * into held
  from pii_vault.held_in(period.first, period.until, 'etl.user_logins_without_period');
  with gone as (
    delete from pii_vault.originals_default o
    where o.ctid = any (found_places.originals)
      and o.period >= period.first and o.period < period.until
      and (o.token in (select unnest(held.kept))) is not true
    returning o.period
  )
  select count(*) into originals from gone;
  with gone as (
    delete from etl.user_logins_without_period l
    where l.ctid = any (found_places.logins)
      and l.create_date >= period.first and l.create_date < period.until
      and (l.user_id in (select unnest(held.users))) is not true
      and (l.masked_ip in (select unnest(held.tokens))) is not true
      and (l.masked_device_id in (select unnest(held.tokens))) is not true
    returning l.create_date
  ),
  counts as (
    select g.create_date as day, count(*) as logins from gone g group by g.create_date
  )
  select coalesce(json_object_agg(etl.day_text(c.day), c.logins), '{}'), coalesce(sum(c.logins), 0)
  into days, "rows"
  from counts c;
  held_originals := case when with_originals then pii_vault.count_held_originals(
    period, 'pii_vault.originals_default', held.kept
  ) else 0 end;
  held_rows := case when with_rows then pii_vault.count_held_logins(
    period, 'etl.user_logins_without_period', held.users, held.tokens
  ) else 0 end;
  if originals + "rows" > 0 then
    entry := pii_vault.record_expiry(
      period, case when with_originals then originals end, case when with_rows then "rows" end,
      held_originals, held_rows, case when with_rows then days end, run, reason
    );
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.expire_period(first date, with_rows boolean, run uuid, reason text)
 RETURNS TABLE(entry bigint, originals bigint, rows bigint, held_originals bigint, held_rows bigint, is_over boolean)
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  period etl.periods;
  old record;
begin
  perform pii_vault.require_reason(expire_period.reason);
  if expire_period.run is null or expire_period.with_rows is null then
    raise exception using
      errcode = 'VL006', message = 'run or with_rows is null, expected an id, and true or false';
  end if;
  perform pii_vault.require_read_committed('an expiry');
  perform pii_vault.commit_to_disk();
  perform pii_vault.at_most('idle_in_transaction_session_timeout', '10s');
  period := pii_vault.old_period(expire_period.first);
  perform pii_vault.lock_for_expiry(period.first, expire_period.with_rows);
  -- As whoever had the lock before has left it.
  period := pii_vault.old_period(expire_period.first);
  select * into old from pii_vault.partitions_of(period.first);
  select d.* into entry, originals, "rows", held_originals, held_rows
  from pii_vault.drop_period(
    period, old.originals, old.logins, expire_period.with_rows, expire_period.run, expire_period.reason
  ) d;
  is_over := old.originals is not null and (old.logins is not null or not expire_period.with_rows);
  if entry is null and not is_over then
    select
      d.entry, d.originals, d."rows", expire_period.held_originals + d.held_originals,
      expire_period.held_rows + d.held_rows, d.entry is null
    into entry, originals, "rows", held_originals, held_rows, is_over
    from pii_vault.expire_by_row(
      period, old.originals is null, expire_period.with_rows and old.logins is null,
      expire_period.run, expire_period.reason
    ) d;
  end if;
  return next;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.expiring_places(period etl.periods, with_originals boolean, with_rows boolean, OUT originals tid[], OUT logins tid[])
 RETURNS record
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  held record;
begin
  select * into held
  from pii_vault.held_in(period.first, period.until, 'etl.user_logins_without_period');
  originals := array(
    select o.ctid from pii_vault.originals_default o
    where with_originals and o.period >= period.first and o.period < period.until
      and (o.token in (select unnest(held.kept))) is not true
    limit 2000
  );
  logins := array(
    select l.ctid from etl.user_logins_without_period l
    where with_rows and l.create_date >= period.first and l.create_date < period.until
      and (l.user_id in (select unnest(held.users))) is not true
      and (l.masked_ip in (select unnest(held.tokens))) is not true
      and (l.masked_device_id in (select unnest(held.tokens))) is not true
    limit 2000
  );
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.fetch_in_periods(request uuid, tokens text[], days date[])
 RETURNS TABLE(token text, first date, until date, data_key uuid, sealed bytea, sealed_at timestamp with time zone, wrapped bytea, proof bytea, generation integer)
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET constraint_exclusion TO 'off'
 SET enable_seqscan TO 'off'
 SET jit TO 'off'
AS $function$
#variable_conflict use_column
declare
  admitted pii_vault.requests;
  period record;
  served integer := 0;
begin
  admitted := pii_vault.admit(fetch_in_periods.request, 'reveal');
  if (
    cardinality(fetch_in_periods.tokens) <= 10000
    and etl.shape(fetch_in_periods.tokens) = format('[1:%s]', cardinality(fetch_in_periods.tokens))
    and etl.shape(fetch_in_periods.tokens) = etl.shape(fetch_in_periods.days)
  ) is not true then
    raise exception using
      errcode = 'VL006', message = 'expected up to 10000 tokens, and a day, or null, for each';
  end if;
  for period in
    select p.first, p.until, array_agg(distinct a.token) as tokens
    from etl.periods_of(fetch_in_periods.days) p
    join unnest(fetch_in_periods.tokens, fetch_in_periods.days) a (token, day)
      on (a.day >= p.first and a.day < p.until) or (a.day is null and p.first is null)
    where a.token in (select unnest(admitted.subjects))
    group by p.first, p.until
    order by p.first
  loop
    for token, first, until, data_key, sealed, sealed_at, wrapped, proof, generation in
      execute format(
        'select a.token, $2, $3, f.data_key, f.sealed, f.sealed_at, k.wrapped, k.proof, k.generation
         from (select unnest($1)) a (token)
         left join lateral (
           select o.data_key, o.sealed, o.sealed_at
           from pii_vault.originals o
           where o.token = a.token and o.sealed_at < $4 and %s
             and not exists (select from pii_vault.canaries c where c.token = o.token)
           order by o.period
           limit 1
         ) f on true
         left join pii_vault.data_keys k on k.id = f.data_key',
        case when period.first is null then 'true' else format('o.period = %L::date', etl.day_text(period.first)) end
      ) using period.tokens, period.first, period.until, admitted.recorded_at
    loop
      served := served + (sealed is not null)::integer;
      return next;
    end loop;
  end loop;
  -- As of fetch_reveal.
  perform pii_vault.record('reveal.fetch', admitted.id, '{}', '{}', served, null, null);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.fetch_reveal(request uuid)
 RETURNS TABLE(token text, data_key uuid, sealed bytea, sealed_at timestamp with time zone, wrapped bytea, proof bytea, generation integer)
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET plan_cache_mode TO 'force_generic_plan'
 SET constraint_exclusion TO 'off'
 SET enable_seqscan TO 'off'
 SET enable_bitmapscan TO 'off'
 SET jit TO 'off'
AS $function$
#variable_conflict use_column
declare
  admitted pii_vault.requests;
  served integer;
begin
  admitted := pii_vault.admit(fetch_reveal.request, 'reveal');
  return query
    select f.token::text, f.data_key, f.sealed, f.sealed_at, k.wrapped, k.proof, k.generation
    from (
      select distinct on (o.token) o.token, o.data_key, o.sealed, o.sealed_at
      from pii_vault.originals o
      where o.token = any (admitted.subjects) and o.sealed_at < admitted.recorded_at
        and not exists (select from pii_vault.canaries c where c.token = o.token)
      order by o.token, o.period
    ) f
    left join pii_vault.data_keys k on k.id = f.data_key;
  get diagnostics served = row_count;
  -- Its caller can roll this back; the request he cannot.
  perform pii_vault.record('reveal.fetch', admitted.id, '{}', '{}', served, null, null);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.field_of(token text)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select case when starts_with(token, 'ip') then 'ip' else 'device_id' end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.forget_tokens(tokens text[], reason text)
 RETURNS TABLE(entry bigint, receipt json, outcomes json)
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  erasure uuid := gen_random_uuid();
  gone text[];
  ips integer;
  kept text[];
  forgotten integer;
  unknown integer;
  originals integer;
  replaced integer;
begin
  perform pii_vault.require_tokens(forget_tokens.tokens, 100000);
  perform pii_vault.require_reason(forget_tokens.reason);
  perform pii_vault.close_gate();

  select
    -- Those of ip stand first.
    coalesce(array_agg(a.token order by a.field desc) filter (where a.outcome = 'erase'), '{}'),
    count(*) filter (where a.outcome = 'erase' and a.field = 'ip'),
    coalesce(array_agg(a.token) filter (where a.outcome = 'keep'), '{}'),
    count(*) filter (where a.outcome = 'forgotten'),
    count(*) filter (where a.outcome = 'unknown'),
    json_agg(
      json_build_object('token', a.token, 'field', a.field, 'outcome', a.outcome)
      order by a."position"
    )
  into gone, ips, kept, forgotten, unknown, outcomes
  from pii_vault.assess_tokens(forget_tokens.tokens, 1) a;
  perform pii_vault.refuse_held(pii_vault.held_among(gone), json_array_length(outcomes));

  originals := pii_vault.bury(gone, erasure);
  replaced := pii_vault.replace_values(
    null,
    array_fill('ip'::text, array[ips]) || array_fill('device_id'::text, array[cardinality(gone) - ips]),
    gone,
    pii_vault.fresh_tokens('ip', ips) || pii_vault.fresh_tokens('device_id', cardinality(gone) - ips)
  );
  receipt := json_build_object(
    'erasure', erasure,
    'kind', 'tokens',
    'at', pii_vault.utc_text(clock_timestamp()),
    'erased', pii_vault.count_by_field(gone),
    'kept', pii_vault.count_by_field(kept),
    'forgotten', forgotten,
    'unknown', unknown,
    'originals', originals,
    'rows', replaced,
    'digest', pii_vault.token_digest(gone)
  );
  entry := pii_vault.record(
    'erasure.forget', null, '{}', '{}', cardinality(gone), forget_tokens.reason, receipt
  );
  return next;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.forget_user(user_id text, reason text)
 RETURNS TABLE(entry bigint, receipt json, outcomes json)
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  erasure uuid := gen_random_uuid();
  fields text[];
  found text[];
  gone text[];
  kept text[];
  plain integer;
  user_is_held boolean;
  held text[];
  originals integer;
  replaced integer;
begin
  perform pii_vault.require_user_id(forget_user.user_id);
  perform pii_vault.require_reason(forget_user.reason);
  perform pii_vault.close_gate();

  select
    coalesce(array_agg(a.field order by a.field desc, a.value collate "C"), '{}'),
    coalesce(array_agg(a.value order by a.field desc, a.value collate "C"), '{}'),
    coalesce(array_agg(a.value) filter (where a.is_token and a.others = 0), '{}'),
    coalesce(array_agg(a.value) filter (where a.is_token and a.others > 0), '{}'),
    count(*) filter (where not a.is_token),
    coalesce(
      json_agg(
        json_build_object(
          'token', case when a.is_token then a.value end,
          'field', a.field,
          'logins', a.logins,
          'outcome', case when not a.is_token then 'replace' when a.others > 0 then 'keep' else 'erase' end
        )
        order by a.field desc, a.value collate "C"
      ),
      '[]'
    )
  into fields, found, gone, kept, plain, outcomes
  from pii_vault.assess_user(forget_user.user_id, 1) a;

  user_is_held := exists (
    select from pii_vault.holds h where h.released_at is null and h.user_id = forget_user.user_id
  );
  held := case when user_is_held then gone || kept else pii_vault.held_among(gone || kept) end;
  perform pii_vault.refuse_held(held, cardinality(gone || kept));
  -- Also where the rows hold nothing that has a name.
  if user_is_held then
    raise exception using
      errcode = 'VL040',
      message = 'this user is under a legal hold, so nothing was erased',
      hint = '`veil hold list` shows the holds, and who added them';
  end if;

  originals := pii_vault.bury(gone, erasure);
  replaced := pii_vault.replace_values(
    forget_user.user_id, fields, found,
    -- Those of ip stand first.
    pii_vault.fresh_tokens('ip', cardinality(array_positions(fields, 'ip')))
      || pii_vault.fresh_tokens('device_id', cardinality(array_positions(fields, 'device_id')))
  );
  receipt := json_build_object(
    'erasure', erasure,
    'kind', 'user',
    'at', pii_vault.utc_text(clock_timestamp()),
    'subject', pii_vault.user_digest(forget_user.user_id),
    'erased', pii_vault.count_by_field(gone),
    'kept', pii_vault.count_by_field(kept),
    'plain', plain,
    'originals', originals,
    'rows', replaced,
    'digest', pii_vault.token_digest(gone)
  );
  entry := pii_vault.record(
    'erasure.forget', null, '{}', '{}', cardinality(gone), forget_user.reason, receipt
  );
  return next;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.fresh_tokens(field text, amount integer)
 RETURNS text[]
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select coalesce(
    array_agg(
      case field when 'ip' then 'ip0_' else 'dev0_' end
        || substr(r.letters, 1, 25)
        || translate(
          substr(r.letters, 26, 1), 'abcdefghijklmnopqrstuvwxyz234567', repeat('aeimquy4', 4)
        )
    ),
    '{}'
  )
  from (
    select translate(
      lower(
        substr(
          encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64'),
          1, 26
        ) collate "C"
      ),
      '0189+/', '234567'
    ) as letters
    from generate_series(1, amount)
  ) r
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.freshen(field text, tokens text[], forgotten text[])
 RETURNS text[]
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  place integer;
begin
  for place in
    select t.place from generate_subscripts(tokens, 1) t (place)
    where (tokens[t.place] in (select unnest(forgotten))) is true
  loop
    tokens[place] := (pii_vault.fresh_tokens(field, 1))[1];
  end loop;
  return tokens;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.held_among(tokens text[])
 RETURNS text[]
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select coalesce(array_agg(distinct t.token), '{}')
  from unnest(tokens) t (token)
  where t.token in (
    select h.token from pii_vault.holds h where h.released_at is null and h.token is not null
    union all
    select v.value
    from pii_vault.holds h cross join lateral pii_vault.values_of_user(h.user_id) v
    where h.released_at is null and h.user_id is not null
  )
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.held_in(first date, until date, logins regclass, OUT users text[], OUT tokens text[], OUT kept text[])
 RETURNS record
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  select
    coalesce(array_agg(distinct h.user_id::text) filter (where h.user_id is not null), '{}'),
    coalesce(array_agg(distinct h.token::text) filter (where h.token is not null), '{}')
  into users, tokens
  from pii_vault.holds h where h.released_at is null;
  kept := tokens || array(select c.token::text from pii_vault.canaries c);
  if cardinality(users) > 0 then
    execute format(
      'select $2 || coalesce(array_agg(distinct t.token::text), ''{}'')
       from %s l cross join lateral (values (l.masked_ip), (l.masked_device_id)) t (token)
       where l.user_id = any ($1) and t.token is not null and l.create_date >= $3 and l.create_date < $4',
      logins
    ) into kept using users, kept, first, until;
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.in_the_way(relations regclass[], is_change_allowed boolean)
 RETURNS TABLE(transaction text, told text)
 LANGUAGE sql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select distinct on (k.virtualtransaction) k.virtualtransaction,
    case
      when k.pid is null then 'a prepared transaction'
      else format(
        'session %s (%s%s)', k.pid, coalesce('login ' || r.rolname, 'of the server itself'),
        coalesce(', application ' || nullif(a.application_name, ''), '')
      )
    end || ', which uses ' || k.relation::regclass
  from pg_locks k
  left join lateral pg_stat_get_activity(k.pid) a on a.pid = k.pid
  left join pg_roles r on r.oid = a.usesysid
  where k.locktype = 'relation' and k.granted and k.pid is distinct from pg_backend_pid()
    and k.database = (select d.oid from pg_database d where d.datname = current_database())
    and (
      (
        k.relation in (select unnest(relations))
        and not (
          is_change_allowed and k.mode in ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
        )
      )
      or (
        k.relation = 'pii_vault.erasure_gate'::regclass and k.mode <> 'AccessShareLock'
        and not is_change_allowed
      )
    )
  order by k.virtualtransaction, k.relation
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.is_hold_empty(hold uuid)
 RETURNS boolean
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  perform set_config('enable_seqscan', 'off', true);
  return (
    select case
      when h.token is null then not exists (
        select from public.user_logins l where l.user_id = h.user_id collate "default"
      )
      else
        not exists (select from pii_vault.originals o where o.token = h.token)
        and not exists (
          select from pii_vault.occurrences o where o.token = h.token collate "default"
        )
      end
    from pii_vault.holds h
    where h.id = is_hold_empty.hold and h.released_at is null
  );
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.judge(asked pii_vault.requests)
 RETURNS pii_vault.requests
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  rule record;
begin
  -- Of several fields, whatever is stricter.
  select
    bool_or(p.reason_required) as reason_required,
    bool_or(p.approval) as approval,
    min(p.request_seconds) as request_seconds,
    min(p.approval_seconds) as approval_seconds,
    bool_and(
      p.purposes = '{}' or coalesce(asked.purpose = any (p.purposes), false)
    ) as purpose_allowed,
    (
      select string_agg(distinct w.word, ', ' order by w.word)
      from pii_vault.policies q cross join lateral unnest(q.purposes) w (word)
      where (q.field = 'ip' and asked.ip_tokens > 0)
        or (q.field = 'device_id' and asked.device_tokens > 0)
    ) as purposes
  into rule
  from pii_vault.policies p
  where (p.field = 'ip' and asked.ip_tokens > 0)
    or (p.field = 'device_id' and asked.device_tokens > 0)
    or (p.field = 'body' and asked.bodies > 0);
  asked.request_seconds := rule.request_seconds;
  asked.approval_seconds := rule.approval_seconds;

  if asked.reason is null and (rule.reason_required or asked.break_glass) then
    asked.refusal := 'VL030';
  elsif not rule.purpose_allowed then
    asked.refusal := 'VL033';
    asked.refusal_detail := rule.purposes;
  else
    asked.refusal_detail := pii_vault.exceeded_budget(
      asked.login_oid, asked.ip_tokens, asked.device_tokens, asked.bodies
    );
    asked.refusal := case when asked.refusal_detail is not null then 'VL035' end;
  end if;
  asked.approval := case
    when not rule.approval then 'none'
    when asked.break_glass then 'skipped'
    else 'needed'
  end;
  return asked;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.lift_tombstones(tokens text[], reason text)
 RETURNS integer
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  lifted text[];
begin
  perform pii_vault.require_tokens(lift_tombstones.tokens, 100000);
  perform pii_vault.require_reason(lift_tombstones.reason);
  perform pii_vault.close_gate();
  with gone as (
    delete from pii_vault.tombstones t
    where t.token = any (lift_tombstones.tokens)
    returning t.token
  )
  select coalesce(array_agg(g.token::text order by g.token), '{}') into lifted from gone g;
  if cardinality(lifted) > 0 then
    perform pii_vault.record(
      'tombstone.lifted', null, lifted, '{}', cardinality(lifted), lift_tombstones.reason, null
    );
  end if;
  return cardinality(lifted);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.list_holds()
 RETURNS TABLE(id uuid, token text, user_id text, reason text, added_by text, added_at timestamp with time zone, released_by text, released_at timestamp with time zone, release_reason text)
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select h.id, h.token, h.user_id, h.reason, h.added_by, h.added_at, h.released_by, h.released_at,
    h.release_reason
  from pii_vault.holds h
  order by h.added_at, h.id
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.lock_for_expiry(first date, with_rows boolean)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  started timestamptz := clock_timestamp();
  parts record;
  relation regclass := 'pii_vault.originals_default';
begin
  perform pii_vault.at_most('lock_timeout', '5s');
  -- First, because partitions are only looked up by one expiry at a time: the one before may drop some.
  lock table only pii_vault.originals_default in share update exclusive mode;
  select * into parts from pii_vault.partitions_of(first);
  foreach relation in array
    pii_vault.locks_of_drop(parts.originals, case when with_rows then parts.logins end)
  loop
    -- The parents are changed by whoever makes periods.
    continue when relation in ('pii_vault.originals'::regclass, 'public.user_logins'::regclass);
    execute format('lock table only %s in share update exclusive mode', relation);
  end loop;
exception when lock_not_available then
  perform pii_vault.refuse_busy(
    first, array(select w.told from pii_vault.in_the_way(array[relation], true) w), started
  );
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.lock_within(relations regclass[], most interval)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  ends timestamptz := clock_timestamp() + most;
  relation regclass;
  left_ms integer;
begin
  foreach relation in array relations loop
    left_ms := extract(epoch from ends - clock_timestamp()) * 1000;
    if left_ms < 1 then
      raise lock_not_available;
    end if;
    perform pii_vault.at_most('lock_timeout', left_ms || 'ms');
    execute format('lock table only %s in access exclusive mode', relation);
  end loop;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.locks_of_drop(originals regclass, logins regclass)
 RETURNS regclass[]
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select
    case when originals is null then '{}' else array[
      'pii_vault.originals'::regclass, 'pii_vault.originals_default'::regclass, originals
    ] end
    || case when logins is null then '{}' else array[
      'public.user_logins'::regclass, 'etl.user_logins_default'::regclass,
      'etl.user_logins_without_date'::regclass, 'etl.user_logins_without_period'::regclass, logins
    ] end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.look_at_period(first date, until date, old_originals regclass, logins regclass, with_rows boolean, OUT changes bigint, OUT originals bigint, OUT held_originals bigint, OUT rows bigint, OUT held_rows bigint, OUT days json)
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  held record;
  copy text := etl.partition_name('user_logins', first) || '_held';
begin
  select p.changes into changes from etl.periods p where p.first = look_at_period.first;
  perform set_config('enable_seqscan', 'on', true);
  if old_originals is not null then
    execute format('select count(*) from %s', old_originals) into originals;
  end if;
  if with_rows then
    execute format(
      'select coalesce(json_object_agg(etl.day_text(d.day), d.logins), ''{}''), coalesce(sum(d.logins), 0)
       from (select l.create_date, count(*) from %s l group by l.create_date) d (day, logins)',
      logins
    ) into days, "rows";
  end if;
  -- Token by token, however little is known of the tables' sizes.
  perform set_config('enable_seqscan', 'off', true);
  select * into held
  from pii_vault.held_in(first, until, coalesce(logins, 'etl.user_logins_without_period'));
  if old_originals is not null then
    held_originals := pii_vault.copy_held_originals(
      first, until, old_originals, held.kept, etl.partition_name('originals', first) || '_held'
    );
    originals := originals - held_originals;
  end if;
  if with_rows then
    held_rows := pii_vault.copy_held_logins(first, until, logins, held.users, held.tokens, copy);
    "rows" := "rows" - held_rows;
    if held_rows > 0 then
      execute format(
        'select coalesce(json_object_agg(d.day, d.logins), ''{}'')
         from (
           select c.day, sum(c.logins) as logins
           from (
             select t.key as day, t.value::bigint as logins from json_each_text($1) t
             union all
             select etl.day_text(l.create_date), -count(*) from etl.%I l group by l.create_date
           ) c
           group by c.day having sum(c.logins) > 0
         ) d',
        copy
      ) into days using days;
    end if;
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.make_originals_table(name text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  execute format(
    'create table pii_vault.%I (
       like pii_vault.originals including defaults including constraints including indexes
     )',
    name
  );
  execute format('alter table pii_vault.%I owner to veil_owner', name);
  execute format('alter table pii_vault.%I alter column sealed set statistics 0', name);
  perform etl.vacuum_early(format('pii_vault.%I', name));
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.may_return(field text)
 RETURNS boolean
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select coalesce(
    (select p.erased_may_return from pii_vault.policies p where p.field = may_return.field), false
  )
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.old_period(first date)
 RETURNS etl.periods
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  period etl.periods;
begin
  select p.* into period from etl.periods p where p.first = old_period.first;
  if not found then
    period.first := old_period.first;
    period.until := old_period.first + 1;
  end if;
  if (period.until <= pii_vault.day_before(15)) is not true then
    raise exception using
      errcode = 'VL006', message = 'expected the first day of a period that ended 15 days ago or before';
  end if;
  if etl.period_of(period.first) <> period.first or period.first < '0001-01-01' then
    raise exception using errcode = 'VL042', message = 'no period begins on this day';
  end if;
  return period;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.on_chained(entries bigint[])
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.partitions_of(first date, OUT originals regclass, OUT logins regclass)
 RETURNS record
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select
    to_regclass(format('pii_vault.%I', etl.partition_name('originals', first))),
    to_regclass(format('etl.%I', etl.partition_name('user_logins', first)))
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.place_of(entry bigint)
 RETURNS TABLE("position" bigint, hash text)
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  return query
    select c.position, encode(c.hash, 'hex')
    from pii_vault.audit_chain c
    join pii_vault.audit a on a.id = c.entry
    where a.id = place_of.entry and a.login_oid = pii_vault.caller()
      and a.action ~ '^(erasure|hold|tombstone)[.]';
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.plan_expire(older_than integer, with_rows boolean)
 RETURNS TABLE(first text, until text, bytes bigint)
 LANGUAGE plpgsql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  last date := pii_vault.day_before(plan_expire.older_than);
begin
  if plan_expire.with_rows is null then
    raise exception using errcode = 'VL006', message = 'with_rows is null, expected true or false';
  end if;
  return query
    with days as (
      select o.period as day from pii_vault.originals_default o
      where o.period >= '0001-01-01' and o.period < last
      union
      select l.create_date from etl.user_logins_without_period l
      where plan_expire.with_rows and l.create_date >= '0001-01-01' and l.create_date < last
    ),
    found as (
      select s.first, s.until,
        coalesce(pg_total_relation_size(t.originals), 0)
          + case when plan_expire.with_rows then coalesce(pg_total_relation_size(t.logins), 0) else 0 end
          as bytes
      from etl.periods s cross join lateral pii_vault.partitions_of(s.first) t
      where t.originals is not null or (plan_expire.with_rows and t.logins is not null)
      union all
      select p.first, p.until, 0
      from etl.periods_of(array(select d.day from days d)) p
    )
    select etl.day_text(f.first), etl.day_text(f.until), sum(f.bytes)::bigint
    from found f where f.until <= last
    group by f.first, f.until
    order by f.first;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.plan_expire_period(first date, with_rows boolean)
 RETURNS TABLE(originals bigint, rows bigint, held_originals bigint, held_rows bigint)
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  period etl.periods := pii_vault.old_period(plan_expire_period.first);
  source record;
  held record;
begin
  select
    coalesce(t.originals, 'pii_vault.originals_default') as originals,
    coalesce(t.logins, 'etl.user_logins_without_period') as logins
  into source from pii_vault.partitions_of(period.first) t;
  "rows" := 0;
  held_rows := 0;
  execute format('select count(*) from %s o where o.period >= $1 and o.period < $2', source.originals)
  into originals using period.first, period.until;
  if plan_expire_period.with_rows then
    execute format(
      'select count(*) from %s l where l.create_date >= $1 and l.create_date < $2', source.logins
    ) into "rows" using period.first, period.until;
  end if;
  perform set_config('enable_seqscan', 'off', true);
  select * into held from pii_vault.held_in(period.first, period.until, source.logins);
  held_originals := pii_vault.count_held_originals(period, source.originals, held.kept);
  originals := originals - held_originals;
  if plan_expire_period.with_rows then
    held_rows := pii_vault.count_held_logins(period, source.logins, held.users, held.tokens);
    "rows" := "rows" - held_rows;
  end if;
  return next;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.plan_forget_tokens(tokens text[])
 RETURNS TABLE(token text, field text, logins bigint, others bigint, outcome text)
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  asked text[];
begin
  perform pii_vault.require_tokens(plan_forget_tokens.tokens, 100000);
  perform set_config('enable_seqscan', 'off', true);
  return query
    with held as materialized (
      select unnest(pii_vault.held_among(plan_forget_tokens.tokens)) as token
    )
    select a.token, a.field, a.logins, greatest(a.users - 1, 0),
      case
        when a.outcome = 'erase' and a.token in (select h.token from held h) then 'held'
        else a.outcome
      end
    from pii_vault.assess_tokens(plan_forget_tokens.tokens, 10000) a
    order by a."position";
  asked := array(select distinct t.token from unnest(plan_forget_tokens.tokens) t (token));
  perform pii_vault.record(
    'erasure.planned', null, '{}', '{}', cardinality(asked), null,
    json_build_object('kind', 'tokens', 'subject', pii_vault.token_digest(asked))
  );
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.plan_forget_user(user_id text)
 RETURNS TABLE(token text, field text, logins bigint, others bigint, outcome text)
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  user_is_held boolean;
  tokens integer := 0;
begin
  perform pii_vault.require_user_id(plan_forget_user.user_id);
  perform set_config('enable_seqscan', 'off', true);
  user_is_held := exists (
    select from pii_vault.holds h
    where h.released_at is null and h.user_id = plan_forget_user.user_id
  );
  for token, field, logins, others, outcome in
    with assessed as materialized (
      select * from pii_vault.assess_user(plan_forget_user.user_id, 10000)
    ),
    held as materialized (
      select unnest(pii_vault.held_among(array(select a.value from assessed a))) as value
    )
    select
      case when a.is_token then a.value end, a.field, a.logins, a.others,
      case
        when user_is_held or a.value in (select h.value from held h) then 'held'
        when not a.is_token then 'replace'
        when a.others > 0 then 'keep'
        else 'erase'
      end
    from assessed a
    order by a.field desc, a.value collate "C"
  loop
    tokens := tokens + (token is not null)::integer;
    return next;
  end loop;
  perform pii_vault.record(
    'erasure.planned', null, '{}', '{}', tokens, null,
    json_build_object('kind', 'user', 'subject', pii_vault.user_digest(plan_forget_user.user_id))
  );
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.plant_canary(token text, sealed bytea, generation integer, key_check bytea, data_key uuid, wrapped bytea, recipients text[], proof bytea, reason text)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.recent_alarms()
 RETURNS TABLE(entry bigint, login text, recorded_at timestamp with time zone, request uuid, items integer)
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select a.id, a.login, a.at, a.request, a.items
  from pii_vault.audit a
  where a.action = 'canary.alarm' and a.at > clock_timestamp() - interval '24 hours'
  order by a.at, a.id
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.record(action text, request uuid, tokens text[], message_ids text[], items integer, reason text, details json)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  entry bigint;
begin
  insert into pii_vault.audit (
    login_oid, role, action, request, tokens, message_ids, items, reason, details
  ) values (
    pii_vault.caller(), pii_vault.acting_role(), record.action, record.request, record.tokens, record.message_ids,
    record.items, nullif(btrim(record.reason), ''), record.details
  )
  returning id into entry;
  return entry;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.record_expiry(period etl.periods, originals bigint, rows bigint, held_originals bigint, held_rows bigint, days json, run uuid, reason text)
 RETURNS bigint
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  at timestamptz := clock_timestamp();
begin
  insert into etl.periods as p (first, until, originals_expired_at, logins_expired_at)
  values (
    period.first, period.until,
    case when originals is not null then at end, case when "rows" is not null then at end
  )
  on conflict (first) do update set
    originals_expired_at = coalesce(p.originals_expired_at, excluded.originals_expired_at),
    logins_expired_at = coalesce(p.logins_expired_at, excluded.logins_expired_at);
  insert into etl.expired_logins as e (day, logins)
  select t.key::date, t.value::bigint from json_each_text(days) t order by 1
  on conflict (day) do update set logins = e.logins + excluded.logins;
  return pii_vault.record(
    'erasure.expire', null, '{}', '{}',
    least(coalesce(originals, 0) + coalesce("rows", 0), 2147483647)::integer, reason,
    json_build_object(
      'erasure', gen_random_uuid(),
      'kind', 'expiry',
      'run', run,
      'at', pii_vault.utc_text(at),
      'first', etl.day_text(period.first),
      'until', etl.day_text(period.until),
      'originals', originals,
      'rows', "rows",
      'days', days,
      'held', json_build_object('originals', held_originals, 'rows', held_rows)
    )
  );
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.record_request(kind text, subjects text[], reason text, purpose text, break_glass boolean)
 RETURNS uuid
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  asked pii_vault.requests;
  items integer := cardinality(record_request.subjects);
  is_reveal boolean := record_request.kind = 'reveal';
begin
  asked.login_oid := pii_vault.caller();
  perform pii_vault.require_read_committed('a request');
  -- A commit that is not flushed could be lost in a crash. The caller may set this back: fetch_reveal does not rely
  -- on it, it only makes its wait short.
  perform pii_vault.commit_to_disk();
  asked.reason := nullif(btrim(record_request.reason), '');
  asked.purpose := record_request.purpose;
  asked.break_glass := record_request.break_glass;
  select count(*) filter (where is_reveal and starts_with(s.token, 'ip')),
    count(*) filter (where is_reveal and starts_with(s.token, 'dev')),
    count(*) filter (where not is_reveal)
  into asked.ip_tokens, asked.device_tokens, asked.bodies
  from unnest(record_request.subjects) s (token);
  asked := pii_vault.judge(asked);

  insert into pii_vault.requests (
    kind, login_oid, subjects, reason, purpose, break_glass, approval, refusal, refusal_detail,
    request_seconds, approval_seconds, ip_tokens, device_tokens, bodies
  ) values (
    record_request.kind, asked.login_oid, record_request.subjects, asked.reason,
    asked.purpose, asked.break_glass, asked.approval, asked.refusal, asked.refusal_detail,
    asked.request_seconds, asked.approval_seconds, asked.ip_tokens, asked.device_tokens, asked.bodies
  )
  returning id into asked.id;
  perform pii_vault.record(
    case when is_reveal then 'reveal.request' else 'quarantine.' || kind end,
    asked.id,
    case when is_reveal then record_request.subjects else '{}' end,
    case when is_reveal then '{}' else record_request.subjects end,
    items,
    asked.reason,
    nullif(
      json_strip_nulls(json_build_object(
        'purpose', asked.purpose, 'approval', nullif(asked.approval, 'none')
      ))::text,
      '{}'
    )::json
  );
  if asked.break_glass then
    perform pii_vault.record('reveal.breakglass', asked.id, '{}', '{}', items, asked.reason, null);
  end if;
  if asked.refusal is not null then
    perform pii_vault.record(
      case when is_reveal then 'reveal.refused' else 'quarantine.refused' end,
      asked.id, '{}', '{}', items, null,
      json_strip_nulls(json_build_object('refusal', asked.refusal, 'expected', asked.refusal_detail))
    );
    -- Stays in the server's log also where the caller rolls this back.
    raise log 'veil: request % of % is refused: %', asked.id, session_user, asked.refusal;
  elsif asked.approval = 'needed' then
    -- Anybody may listen: the id says nothing to who may not look it up.
    perform pg_notify('veil_approvals', asked.id::text);
  end if;
  return asked.id;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.refuse_busy(first date, told text[], since timestamp with time zone)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  raise exception using
    errcode = '55P03',
    message = format(
      'the period that begins on %s could not be expired, and is as it was; in the way at %s already: %s',
      etl.day_text(first), pii_vault.utc_text(since),
      coalesce(nullif(array_to_string(told[1:3], '; ', ''), ''), 'many short transactions')
    ),
    hint = 'loads go on meanwhile; run it again when the session has ended. A superuser may end it: pg_terminate_backend, or rollback prepared';
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.refuse_change()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  raise exception using
    errcode = 'VL020',
    message = format('%I.%I is append-only: %s is refused', tg_table_schema, tg_table_name, tg_op);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.refuse_held(held text[], asked integer)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  if cardinality(held) > 0 then
    raise exception using
      errcode = 'VL040',
      message = format(
        '%s of %s %s under a legal hold, so nothing was erased: %s%s',
        cardinality(held), asked,
        case when asked = 1 then 'token is' when cardinality(held) = 1 then 'tokens is' else 'tokens are' end, array_to_string(held[1:5], ', '),
        case when cardinality(held) > 5 then ', …' else '' end
      ),
      hint = '`veil hold list` shows the holds, and who added them';
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.refuse_step_back()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  if new.chain is distinct from old.chain or (new.position > old.position) is not true then
    raise exception using
      errcode = 'VL020', message = 'pii_vault.audit_head only moves on: this update is refused';
  end if;
  return new;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.refuse_unready(request pii_vault.requests, state text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  if state = 'refused' then
    raise exception using
      errcode = request.refusal,
      message = case request.refusal
        when 'VL030' then 'the policy wants a reason, and this request gives none'
        when 'VL033' then 'the policy does not allow the purpose of this request, or it names none'
        when 'VL035' then format(
          'this request would exceed the budget of this login: %s', request.refusal_detail
        )
      end,
      hint = case request.refusal
        when 'VL030' then 'ask again with a reason; the refusal is on record'
        when 'VL033' then format(
          'ask again with one of these: %s; the refusal is on record', request.refusal_detail
        )
        when 'VL035' then 'ask for less or later, or have the policy changed; the refusal is on record'
      end;
  elsif state = 'waiting' then
    raise exception using
      errcode = 'VL031',
      message = format('request %s waits for approval', request.id),
      hint = 'somebody else with the approver role decides; then fetch it';
  elsif state = 'denied' then
    raise exception using
      errcode = 'VL032',
      message = format('request %s was denied', request.id),
      hint = 'ask the approver why; the audit has the reason';
  elsif state = 'expired' then
    raise exception using
      errcode = 'VL003',
      message = 'the request, or its approval, is older than the policy allows',
      hint = 'record a new one';
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.release_hold(hold uuid, reason text)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  released pii_vault.holds;
begin
  perform pii_vault.require_reason(release_hold.reason);
  update pii_vault.holds h
  set released_by = session_user, released_at = clock_timestamp(),
    release_reason = btrim(release_hold.reason)
  where h.id = release_hold.hold and h.released_at is null
  returning h.* into released;
  if not found then
    raise exception using
      errcode = 'VL042',
      message = 'there is no such hold, or it was released before',
      hint = '`veil hold list` shows the holds';
  end if;
  perform pii_vault.record(
    'hold.released', null,
    case when released.token is null then '{}' else array[released.token::text] end, '{}',
    1, release_hold.reason, pii_vault.describe_hold(released)
  );
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.remove_canary(token text, reason text)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.replace_partition(first date, until date, parent regclass, schema text, name text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  copy regclass := to_regclass(format('%I.%I', schema, name || '_held'));
begin
  execute format('drop table %I.%I', schema, name);
  if copy is not null then
    execute format('alter table %s rename to %I', copy, name);
    execute format(
      'alter table %s attach partition %s for values from (%L) to (%L)', parent, copy,
      etl.day_text(first), etl.day_text(until)
    );
    execute format('alter table %s drop constraint in_period', copy);
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.replace_values(user_id text, fields text[], old text[], fresh text[])
 RETURNS integer
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  replaced integer := 0;
  wanted integer := 0;
  changes record;
  done integer;
begin
  for changes in
    with rows as materialized (
      -- A user's rows are looked for by the user: others' logins may have the same token a million times.
      select o.field, o.token, o.partition, o.place from pii_vault.occurrences o
      where o.user_id = replace_values.user_id
      union all
      select o.field, o.token, o.partition, o.place
      from unnest(replace_values.fields, replace_values.old) n (field, old)
      join pii_vault.occurrences o on o.field = n.field and o.token = n.old
      where replace_values.user_id is null
    ),
    changed as (
      select r.partition, r.place,
        max(n.fresh) filter (where n.field = 'ip') as ip,
        max(n.fresh) filter (where n.field = 'device_id') as device
      from rows r
      join unnest(replace_values.fields, replace_values.old, replace_values.fresh) n (field, old, fresh)
        on n.field = r.field and n.old = r.token
      group by r.partition, r.place
    )
    select c.partition::regclass as partition, array_agg(c.place) as places, array_agg(c.ip) as ips,
      array_agg(c.device) as devices
    from changed c
    group by c.partition
    order by c.partition
  loop
    execute format(
      'update only %s l
       set masked_ip = coalesce(c.ip, l.masked_ip), masked_device_id = coalesce(c.device, l.masked_device_id)
       from unnest($1, $2, $3) c (place, ip, device)
       where l.ctid = c.place',
      changes.partition
    ) using changes.places, changes.ips, changes.devices;
    get diagnostics done = row_count;
    replaced := replaced + done;
    wanted := wanted + cardinality(changes.places);
  end loop;
  if replaced <> wanted then
    raise exception using
      errcode = 'VL016',
      message = format('public.user_logins took %s of %s changes; nothing was erased', replaced, wanted),
      hint = 'a trigger or a rule on it drops them: veil needs each of them made';
  end if;
  return replaced;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.request_of_another(request uuid)
 RETURNS pii_vault.requests
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  caller oid := pii_vault.caller();
  asked pii_vault.requests;
begin
  select r.* into asked from pii_vault.requests r where r.id = request_of_another.request;
  if not found then
    raise exception using
      errcode = 'VL042', message = 'there is no such request', hint = 'was its id copied in full?';
  end if;
  if asked.login_oid = caller or asked.login = session_user then
    raise exception using
      errcode = 'VL036',
      message = 'nobody decides on a request of his own',
      hint = 'another login with the approver role has to';
  end if;
  return asked;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.request_reveal(tokens text[], reason text)
 RETURNS uuid
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select pii_vault.request_tokens(tokens, reason, null, false)
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.request_reveal(tokens text[], reason text, purpose text)
 RETURNS uuid
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select pii_vault.request_tokens(tokens, reason, nullif(btrim(purpose), ''), false)
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.request_state(request uuid)
 RETURNS text
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select coalesce(
    (
      select pii_vault.state_of(r)
      from pii_vault.requests r
      where r.id = request_state.request and r.login = session_user
        and r.login_oid = (select p.oid from pg_roles p where p.rolname = session_user)
    ),
    'unknown'
  )
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.request_tokens(tokens text[], reason text, purpose text, break_glass boolean)
 RETURNS uuid
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  asked text[];
begin
  perform pii_vault.require_reason_length(reason);
  if char_length(purpose) > 32 then
    raise exception using errcode = 'VL006', message = 'a purpose has up to 32 characters';
  end if;
  perform pii_vault.require_tokens(tokens, 10000);
  select array_agg(t.token order by t.position) into asked
  from (
    select u.token, min(u.position) as position
    from unnest(tokens) with ordinality as u (token, position)
    group by u.token
  ) t;
  return pii_vault.record_request('reveal', asked, reason, purpose, break_glass);
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.require_flushed()
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  target pg_lsn;
  give_up timestamptz;
begin
  if current_setting('server_version_num')::integer >= 170000 then
    perform pg_logical_emit_message(false, 'veil', '', true);
    return;
  end if;
  target := pg_current_wal_insert_lsn();
  give_up := clock_timestamp() + interval '2 seconds';
  while pg_current_wal_flush_lsn() < target loop
    if clock_timestamp() > give_up then
      raise exception using
        errcode = 'VL004',
        message = 'the request is not known to be on disk yet',
        hint = 'commit anything that writes, which flushes, and try again';
    end if;
    perform pg_sleep(0.005);
  end loop;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.require_message_ids(message_ids text[])
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  if coalesce(array_ndims(message_ids), 0) <> 1 or cardinality(message_ids) > 10000 then
    raise exception using errcode = 'VL006', message = 'expected 1 to 10000 message ids';
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.require_read_committed(what text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using
      errcode = 'VL015', message = what || ' needs the isolation level read committed',
      hint = 'begin isolation level read committed';
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.require_reason(reason text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  perform pii_vault.require_reason_length(reason);
  if coalesce(btrim(reason), '') = '' then
    raise exception using
      errcode = 'VL030', message = 'this needs a reason', hint = 'say why: it goes on record';
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.require_reason_length(reason text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  if char_length(reason) > 1000 then
    raise exception using
      errcode = 'VL006', message = 'a reason has up to 1000 characters';
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.require_tokens(tokens text[], most integer)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  if coalesce(array_ndims(tokens), 0) <> 1 or cardinality(tokens) > most then
    raise exception using errcode = 'VL006', message = format('expected 1 to %s tokens', most);
  end if;
  if exists (
    select from unnest(tokens) t (token)
    where token is null or char_length(token) > 64
      -- In two parts, because a counted repetition costs four times as much.
      or token !~ '^(ip|dev)(0|[1-9][0-9]*)_[a-z2-7]+[aeimquy4]$'
      or substr(token, char_length(token) - 26, 1) <> '_'
  ) then
    raise exception using errcode = 'VL006', message = 'one of the tokens is not written as a token is';
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.require_user_id(user_id text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  if (char_length(user_id) between 1 and 128) is not true then
    raise exception using errcode = 'VL006', message = 'expected a user id of 1 to 128 characters';
  end if;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.review(request uuid, note text)
 RETURNS void
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  asked pii_vault.requests;
begin
  perform pii_vault.require_reason(review.note);
  asked := pii_vault.request_of_another(review.request);
  if not asked.break_glass then
    raise exception using
      errcode = 'VL037', message = 'this request was no break-glass: there is nothing to review';
  end if;
  insert into pii_vault.reviews (request, login_oid) values (asked.id, pii_vault.caller())
  on conflict do nothing;
  if not found then
    raise exception using errcode = 'VL037', message = 'this request has been reviewed already';
  end if;
  perform pii_vault.record(
    'reveal.reviewed', asked.id, '{}', '{}', cardinality(asked.subjects), review.note,
    json_build_object('requester', asked.login)
  );
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.set_policy(field text, settings jsonb, reason text)
 RETURNS SETOF pii_vault.policies
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
#variable_conflict use_column
declare
  before pii_vault.policies;
  after pii_vault.policies;
  unknown text;
begin
  perform pii_vault.require_reason_length(set_policy.reason);
  select p.* into before from pii_vault.policies p where p.field = set_policy.field for update;
  if not found then
    raise exception using
      errcode = 'VL006', message = 'expected the field ip, device_id or body';
  end if;
  if jsonb_typeof(settings) is distinct from 'object' then
    raise exception using errcode = 'VL006', message = 'expected settings as a JSON object';
  end if;
  select k.key into unknown from jsonb_object_keys(settings) k (key)
  where k.key not in (
    'reason_required', 'purposes', 'hourly', 'daily', 'approval', 'request_seconds',
    'approval_seconds', 'erased_may_return'
  )
  limit 1;
  if found then
    raise exception using errcode = 'VL006', message = 'a policy has no such setting';
  end if;
  begin
    after := jsonb_populate_record(before, settings);
    update pii_vault.policies p
    set reason_required = after.reason_required, purposes = after.purposes, hourly = after.hourly,
      daily = after.daily, approval = after.approval, request_seconds = after.request_seconds,
      approval_seconds = after.approval_seconds, erased_may_return = after.erased_may_return
    where p.field = set_policy.field;
  exception
    when check_violation or not_null_violation or data_exception then
      raise exception using
        errcode = 'VL006', message = 'a setting of the policy is out of its bounds',
        hint = 'purposes are words of a-z, 0-9 and -; times are 60 seconds to 30 days; limits are 0 or more';
  end;
  if after is distinct from before then
    perform pii_vault.record(
      'policy.changed', null, '{}', '{}', 1, set_policy.reason,
      json_build_object('before', to_json(before), 'after', to_json(after))
    );
  end if;
  return next after;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.state_of(request pii_vault.requests)
 RETURNS text
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
declare
  verdict pii_vault.verdicts;
begin
  if request.refusal is not null then
    return 'refused';
  end if;
  if request.approval = 'needed' then
    select v.* into verdict from pii_vault.verdicts v where v.request = state_of.request.id;
    if not found then
      return case when clock_timestamp()
          > request.recorded_at + request.request_seconds * interval '1 second'
        then 'expired' else 'waiting' end;
    end if;
    return case
      when not verdict.approved then 'denied'
      when clock_timestamp()
        > verdict.decided_at + request.approval_seconds * interval '1 second' then 'expired'
      else 'ready'
    end;
  end if;
  return case when clock_timestamp() > request.recorded_at + interval '1 second'
      * case request.approval
        when 'skipped' then request.approval_seconds else request.request_seconds
      end
    then 'expired' else 'ready' end;
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.token_digest(tokens text[])
 RETURNS text
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select encode(
    sha256(convert_to(coalesce(string_agg(t, E'\n' order by t collate "C"), ''), 'UTF8')), 'hex'
  )
  from unnest(tokens) t
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.try_drop(first date, until date, relations regclass[], changes bigint, with_originals boolean, with_rows boolean)
 RETURNS text
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
begin
  perform pii_vault.at_most('lock_timeout', '120ms');
  lock table pii_vault.erasure_gate in exclusive mode;
  if (with_originals or with_rows)
    and changes is distinct from (select p.changes from etl.periods p where p.first = try_drop.first)
  then
    raise serialization_failure;
  end if;
  perform pii_vault.lock_within(relations, interval '80 milliseconds');
  if with_originals then
    perform pii_vault.replace_partition(
      first, until, 'pii_vault.originals', 'pii_vault', etl.partition_name('originals', first)
    );
  end if;
  if with_rows then
    perform pii_vault.replace_partition(
      first, until, 'public.user_logins', 'etl', etl.partition_name('user_logins', first)
    );
    -- Late rows of the period go to the default partition's own partitions, whose bounds sessions have cached. PostgreSQL
    -- has them look again at the default partition only, and would refuse such rows (23514). This changes nothing else.
    alter table etl.user_logins_without_period reset (fillfactor);
  end if;
  return 'done';
exception
  when lock_not_available or deadlock_detected then
    return 'busy';
  when serialization_failure then
    return 'changed';
end
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.unreviewed_requests()
 RETURNS TABLE(request uuid, login text, recorded_at timestamp with time zone, kind text, items integer, reason text, purpose text, subjects text[])
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select
    r.id, r.login, r.recorded_at, r.kind, cardinality(r.subjects), r.reason, r.purpose,
    r.subjects
  from pii_vault.requests r
  where r.break_glass and r.refusal is null
    and not exists (select from pii_vault.reviews v where v.request = r.id)
  order by r.recorded_at, r.id
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.user_digest(user_id text)
 RETURNS text
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select encode(sha256(convert_to(user_id, 'UTF8')), 'hex')
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.users_of(token text, most integer, OUT logins bigint, OUT users bigint)
 RETURNS record
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  with had as (
    select o.user_id from pii_vault.occurrences o
    where o.token = users_of.token
  )
  select
    (select count(*) from (select from had limit most) l),
    -- One, and whoever is somebody else.
    coalesce(
      (
        select 1 + (
          select count(distinct coalesce(s.user_id, ''))
          from (
            select h.user_id from had h where h.user_id is distinct from one.user_id limit most
          ) s
        )
        from (select h.user_id from had h limit 1) one
      ),
      0
    )
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.utc_text(at timestamp with time zone)
 RETURNS text
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select to_char(at at time zone interval '0', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.values_of_user(user_id text)
 RETURNS TABLE(field text, value text, is_token boolean, logins bigint)
 LANGUAGE sql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select v.field, v.value, v.value ~ (v.prefix || '[1-9][0-9]*_[a-z2-7]{25}[aeimquy4]$'), v.logins
  from (
    select o.field, case o.field when 'ip' then '^ip' else '^dev' end, o.token, count(*)
    from pii_vault.occurrences o
    where o.user_id = values_of_user.user_id
    group by o.field, o.token
  ) v (field, prefix, value, logins)
  where v.value !~ (v.prefix || '0_[a-z2-7]{25}[aeimquy4]$')
$function$
-- owner veil_owner

CREATE OR REPLACE FUNCTION pii_vault.waiting_requests()
 RETURNS TABLE(request uuid, login text, recorded_at timestamp with time zone, expires_at timestamp with time zone, kind text, items integer, reason text, purpose text, subjects text[])
 LANGUAGE sql
 STABLE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
  select
    r.id, r.login, r.recorded_at, r.recorded_at + r.request_seconds * interval '1 second', r.kind,
    cardinality(r.subjects), r.reason, r.purpose, r.subjects
  from pii_vault.requests r
  where r.approval = 'needed' and r.refusal is null
    and clock_timestamp() <= r.recorded_at + r.request_seconds * interval '1 second'
    and not exists (select from pii_vault.verdicts v where v.request = r.id)
  order by r.recorded_at, r.id
$function$
-- owner veil_owner

-- comments

etl.adopted: of a copied table: rows, which have no ledger entry, values that are no tokens, and tokens without original
etl.expired_logins: how many rows of each day have expired
etl.ledger_totals: how many messages of each day were stored, of days whose part of the ledger is gone
etl.migrations: the last step, the hashes of sql/current/, and how many routines, views and triggers which transactions wrote
etl.periods: from which day to before which one, what of it has expired, and how often what is old in it was changed
pii_vault.audit: who asked for which originals, when and why; written before the answer exists, never changed
pii_vault.audit_chain: the audit entries in the order in which they were chained, each with a hash over all of them up to it
pii_vault.audit_head: which chain this is, and where it ends
pii_vault.audit_waiting: the audit entries that are on no chain yet
pii_vault.canaries: tokens of originals that no login uses: whoever asks for one has them from elsewhere
pii_vault.data_keys: data keys, each an age file to the recipients; proof shows that a holder of the token key made it
pii_vault.erasure_gate: always empty: loads lock it in row share mode, erasures in exclusive mode
pii_vault.holds: what must not be erased meanwhile: a token, or every token of a user's rows
pii_vault.key_generations: which token key belongs to which generation: eight derived bytes of it, no secret
pii_vault.occurrences: where each token stands in user_logins: field, token, user, day, and the row's partition and place there
pii_vault.originals: for each token and period the first original that was stored, sealed: nonce, ciphertext, tag
pii_vault.policies: what a request for originals of a field, or for quarantined bodies, has to meet; null: no limit
pii_vault.tombstones: tokens whose originals were forgotten, which must not come back
public.user_logins_per_token_and_day: how often each token logged in on each day, and as how many users
public.user_logins_shared_tokens: tokens that more than one user logged in with

-- grants

database: connect to public
database: connect to veil_analyst
database: connect to veil_approver
database: connect to veil_auditor
database: connect to veil_breakglass
database: connect to veil_eraser
database: connect to veil_etl
database: connect to veil_operator
database: connect to veil_owner
database: connect to veil_policy
database: connect to veil_revealer
etl.quarantine (changed_at): select to veil_operator
etl.quarantine (changed_by): select to veil_operator
etl.quarantine (message_id): select to veil_operator
etl.quarantine (quarantined_at): select to veil_operator
etl.quarantine (reason): select to veil_operator
etl.quarantine (sent_at): select to veil_operator
etl.quarantine (state): select to veil_operator
function etl.app_version_text: execute to veil_analyst
function etl.check_invariant: execute to veil_auditor
function etl.check_invariant: execute to veil_operator
function etl.discard: execute to veil_operator
function etl.fetch_bodies: execute to veil_operator
function etl.housekeep: execute to veil_etl
function etl.load: execute to veil_etl
function etl.replay: execute to veil_operator
function etl.request_bodies: execute to veil_operator
function etl.schema_hash: execute to veil_analyst
function etl.schema_hash: execute to veil_approver
function etl.schema_hash: execute to veil_auditor
function etl.schema_hash: execute to veil_breakglass
function etl.schema_hash: execute to veil_eraser
function etl.schema_hash: execute to veil_etl
function etl.schema_hash: execute to veil_operator
function etl.schema_hash: execute to veil_policy
function etl.schema_hash: execute to veil_revealer
function etl.schema_version: execute to veil_analyst
function etl.schema_version: execute to veil_approver
function etl.schema_version: execute to veil_auditor
function etl.schema_version: execute to veil_breakglass
function etl.schema_version: execute to veil_eraser
function etl.schema_version: execute to veil_etl
function etl.schema_version: execute to veil_operator
function etl.schema_version: execute to veil_policy
function etl.schema_version: execute to veil_revealer
function pii_vault.add_hold: execute to veil_policy
function pii_vault.break_glass: execute to veil_breakglass
function pii_vault.chain_audit: execute to veil_approver
function pii_vault.chain_audit: execute to veil_auditor
function pii_vault.chain_audit: execute to veil_breakglass
function pii_vault.chain_audit: execute to veil_eraser
function pii_vault.chain_audit: execute to veil_etl
function pii_vault.chain_audit: execute to veil_operator
function pii_vault.chain_audit: execute to veil_policy
function pii_vault.chain_audit: execute to veil_revealer
function pii_vault.chain_waiting: execute to veil_approver
function pii_vault.chain_waiting: execute to veil_auditor
function pii_vault.chain_waiting: execute to veil_breakglass
function pii_vault.chain_waiting: execute to veil_eraser
function pii_vault.chain_waiting: execute to veil_etl
function pii_vault.chain_waiting: execute to veil_operator
function pii_vault.chain_waiting: execute to veil_policy
function pii_vault.chain_waiting: execute to veil_revealer
function pii_vault.decide: execute to veil_approver
function pii_vault.expire_bodies: execute to veil_eraser
function pii_vault.expire_period: execute to veil_eraser
function pii_vault.fetch_in_periods: execute to veil_breakglass
function pii_vault.fetch_in_periods: execute to veil_revealer
function pii_vault.fetch_reveal: execute to veil_breakglass
function pii_vault.fetch_reveal: execute to veil_revealer
function pii_vault.forget_tokens: execute to veil_eraser
function pii_vault.forget_user: execute to veil_eraser
function pii_vault.is_hold_empty: execute to veil_policy
function pii_vault.lift_tombstones: execute to veil_policy
function pii_vault.list_holds: execute to veil_auditor
function pii_vault.list_holds: execute to veil_eraser
function pii_vault.list_holds: execute to veil_policy
function pii_vault.place_of: execute to veil_eraser
function pii_vault.place_of: execute to veil_policy
function pii_vault.plan_expire: execute to veil_eraser
function pii_vault.plan_expire_period: execute to veil_eraser
function pii_vault.plan_forget_tokens: execute to veil_eraser
function pii_vault.plan_forget_user: execute to veil_eraser
function pii_vault.plant_canary: execute to veil_policy
function pii_vault.recent_alarms: execute to veil_approver
function pii_vault.recent_alarms: execute to veil_auditor
function pii_vault.release_hold: execute to veil_policy
function pii_vault.remove_canary: execute to veil_policy
function pii_vault.request_reveal: execute to veil_revealer
function pii_vault.request_reveal: execute to veil_revealer
function pii_vault.request_state: execute to veil_breakglass
function pii_vault.request_state: execute to veil_operator
function pii_vault.request_state: execute to veil_revealer
function pii_vault.review: execute to veil_approver
function pii_vault.set_policy: execute to veil_policy
function pii_vault.unreviewed_requests: execute to veil_approver
function pii_vault.unreviewed_requests: execute to veil_auditor
function pii_vault.waiting_requests: execute to veil_approver
function pii_vault.waiting_requests: execute to veil_auditor
pii_vault.audit: select to veil_auditor
pii_vault.audit_chain: select to veil_auditor
pii_vault.audit_head: select to veil_auditor
pii_vault.audit_waiting: select to veil_auditor
pii_vault.canaries: select to veil_policy
pii_vault.holds: select to veil_auditor
pii_vault.policies: select to veil_approver
pii_vault.policies: select to veil_auditor
pii_vault.policies: select to veil_policy
pii_vault.reviews: select to veil_auditor
pii_vault.tombstones: select to veil_auditor
pii_vault.verdicts: select to veil_auditor
public.user_logins: select to veil_analyst
public.user_logins_per_token_and_day: select to veil_analyst
public.user_logins_shared_tokens: select to veil_analyst
schema etl: usage to veil_analyst
schema etl: usage to veil_approver
schema etl: usage to veil_auditor
schema etl: usage to veil_breakglass
schema etl: usage to veil_eraser
schema etl: usage to veil_etl
schema etl: usage to veil_operator
schema etl: usage to veil_policy
schema etl: usage to veil_revealer
schema pii_vault: usage to veil_approver
schema pii_vault: usage to veil_auditor
schema pii_vault: usage to veil_breakglass
schema pii_vault: usage to veil_eraser
schema pii_vault: usage to veil_etl
schema pii_vault: usage to veil_operator
schema pii_vault: usage to veil_policy
schema pii_vault: usage to veil_revealer
