-- An audit as its first schema made it, with four rows: what migration 0002 has to bring up to date.
PRAGMA application_id = 1128875057;
BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'callerid.audit','0001_decision_and_outcome','2026-11-23 22:01:22.673217+00:00');
CREATE TABLE decision(
  seq             INTEGER PRIMARY KEY,
  event_id        TEXT    NOT NULL,
  time_us         INTEGER NOT NULL,
  verdict         TEXT    NOT NULL CHECK(verdict IN ('allow', 'deny', 'error')),
  reason          TEXT    NOT NULL,
  method          TEXT    NOT NULL,
  server          TEXT    NOT NULL,
  upstream        TEXT    NOT NULL,
  principal       TEXT    NOT NULL,
  issuer          TEXT,
  agent           TEXT,
  actors          TEXT    NOT NULL,
  evidence        TEXT    NOT NULL,
  assurance       TEXT,
  credential_id   TEXT,
  claimed_subject TEXT,
  client_ip       TEXT,
  client_name     TEXT,
  user_agent      TEXT,
  tool            TEXT,
  target          TEXT,
  arguments       TEXT,
  redactions      INTEGER NOT NULL,
  rule            TEXT,
  would_rule      TEXT,
  policy          TEXT,
  injected        TEXT,
  detail          TEXT,
  request_bytes   INTEGER,
  protocol        TEXT,
  session         TEXT,
  rpc_id          TEXT,
  batch_index     INTEGER,
  trace_id        TEXT
) STRICT;
INSERT INTO "decision" VALUES(1,'01a0c450-6c01-7000-8000-000000000001',1790000000001000,'allow','granted','tools/call','files','https://files.corp.example:443/mcp','user:alice@corp.example','local','claude-code','[]','[{"kind":"scoped_token","carrier":"proxy_authorization","credential_id":"tok_alice_1"}]','bearer','tok_alice_1',NULL,'192.0.2.7',NULL,NULL,'read_file','/srv/reports/q3.md','{"path":"/srv/reports/q3.md"}',0,'readers',NULL,'p1','files-shared@v1',NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "decision" VALUES(2,'01a0c450-6c02-7000-8000-000000000002',1790000000002000,'deny','no_grant','tools/call','warehouse','https://warehouse.corp.example:443/mcp','user:ivy@corp.example','local','claude-code','[]','[{"kind":"scoped_token","carrier":"proxy_authorization","credential_id":"tok_alice_1"}]','bearer','tok_ivy_1',NULL,'192.0.2.7',NULL,NULL,'drop_table','payroll','{"table":"payroll"}',0,NULL,NULL,'p1',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "decision" VALUES(3,'01a0c450-6c03-7000-8000-000000000003',1790000000003000,'allow','granted','tools/call','files','https://files.corp.example:443/mcp','user:bob@corp.example','local','claude-code','[]','[{"kind":"scoped_token","carrier":"proxy_authorization","credential_id":"tok_alice_1"}]','bearer','tok_alice_1',NULL,'192.0.2.7',NULL,NULL,'list_files','/srv/reports/q3.md','{"path":"/srv/reports/q3.md"}',0,'readers',NULL,'p1','files-shared@v1',NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE event(
  id              INTEGER PRIMARY KEY,
  kind            TEXT    NOT NULL,
  time_us         INTEGER NOT NULL,
  after_seq       INTEGER NOT NULL,
  detail          TEXT    NOT NULL
) STRICT;
INSERT INTO "event" VALUES(1,'started',1790000000000000,0,'{"version":"test"}');
CREATE TABLE outcome(
  rid             INTEGER PRIMARY KEY,
  event_id        TEXT    NOT NULL,
  time_us         INTEGER NOT NULL,
  outcome         TEXT    NOT NULL,
  http_status     INTEGER,
  rpc_code        INTEGER,
  duration_us     INTEGER,
  response_bytes  INTEGER,
  detail          TEXT
) STRICT;
INSERT INTO "outcome" VALUES(1,'01a0c450-6c01-7000-8000-000000000001',1790000000043000,'ok',200,NULL,42000,1234,NULL);
CREATE TABLE policy_version(
  hash            TEXT    PRIMARY KEY,
  loaded_us       INTEGER NOT NULL,
  sources         TEXT    NOT NULL
) STRICT;
INSERT INTO "policy_version" VALUES('p1',1790000000000000,'{"policy.yaml":"rules: []\n","servers.yaml":"servers: {}\n"}');
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE UNIQUE INDEX decision_event ON decision(event_id);
CREATE INDEX decision_time      ON decision(time_us, verdict);
CREATE INDEX decision_principal ON decision(principal, time_us);
CREATE INDEX decision_tool      ON decision(server, tool, time_us);
CREATE INDEX decision_session   ON decision(session, time_us) WHERE session IS NOT NULL;
CREATE INDEX decision_refused   ON decision(reason, rule, time_us) WHERE verdict <> 'allow';
CREATE UNIQUE INDEX outcome_event ON outcome(event_id);
CREATE TRIGGER decision_no_update BEFORE UPDATE ON decision BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER decision_no_delete BEFORE DELETE ON decision BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER outcome_no_update BEFORE UPDATE ON outcome BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER outcome_no_delete BEFORE DELETE ON outcome BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER policy_version_no_update BEFORE UPDATE ON policy_version BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER policy_version_no_delete BEFORE DELETE ON policy_version BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER event_no_update BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER event_no_delete BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE VIEW "calls" AS SELECT
  strftime('%Y-%m-%dT%H:%M:%fZ', d.time_us / 1e6, 'unixepoch') AS time_utc,
  d.principal AS principal,
  d.agent AS agent,
  d.actors AS actors,
  d.evidence AS evidence,
  d.assurance AS assurance,
  d.credential_id AS credential_id,
  d.client_ip AS client_ip,
  d.server AS server,
  d.upstream AS upstream,
  d.method AS method,
  d.tool AS tool,
  d.target AS target,
  d.arguments AS arguments,
  d.verdict AS verdict,
  d.reason AS reason,
  d.rule AS rule,
  d.would_rule AS would_rule,
  d.policy AS policy,
  d.injected AS injected,
  CASE WHEN d.verdict <> 'allow' THEN 'not_sent' ELSE coalesce(o.outcome, 'unknown') END AS outcome,
  o.http_status AS http_status,
  o.rpc_code AS rpc_code,
  round(o.duration_us / 1000.0, 3) AS duration_ms,
  d.request_bytes AS request_bytes,
  o.response_bytes AS response_bytes,
  d.protocol AS protocol,
  d.session AS session,
  d.rpc_id AS rpc_id,
  d.trace_id AS trace_id,
  d.event_id AS event_id,
  d.issuer AS issuer,
  d.claimed_subject AS claimed_subject,
  d.client_name AS client_name,
  d.user_agent AS user_agent,
  coalesce(o.detail, d.detail) AS detail,
  d.batch_index AS batch_index,
  d.time_us AS time_us,
  d.seq AS seq
FROM decision d LEFT JOIN outcome o ON o.event_id = d.event_id;
CREATE VIEW "refusals" AS SELECT time_utc, principal, agent, actors, evidence, assurance, credential_id, client_ip, server, upstream, method, tool, target, arguments, verdict, reason, rule, would_rule, policy, injected, outcome, http_status, rpc_code, duration_ms, request_bytes, response_bytes, protocol, session, rpc_id, trace_id, event_id, issuer, claimed_subject, client_name, user_agent, detail, batch_index, time_us, seq
FROM calls WHERE verdict <> 'allow';
CREATE VIEW "servers_seen" AS SELECT
  server,
  upstream,
  strftime('%Y-%m-%dT%H:%M:%fZ', min(time_us) / 1e6, 'unixepoch') AS first_seen,
  strftime('%Y-%m-%dT%H:%M:%fZ', max(time_us) / 1e6, 'unixepoch') AS last_seen,
  count(DISTINCT CASE WHEN principal <> 'anonymous' THEN principal END) AS callers,
  count(*) AS calls,
  sum(verdict <> 'allow') AS refused
FROM decision GROUP BY server, upstream;
CREATE VIEW "credential_use" AS SELECT
  injected,
  server,
  principal,
  count(*) AS calls,
  strftime('%Y-%m-%dT%H:%M:%fZ', min(time_us) / 1e6, 'unixepoch') AS first,
  strftime('%Y-%m-%dT%H:%M:%fZ', max(time_us) / 1e6, 'unixepoch') AS last
FROM decision WHERE injected IS NOT NULL AND verdict = 'allow' GROUP BY injected, server, principal;
COMMIT;
PRAGMA user_version = 1;
