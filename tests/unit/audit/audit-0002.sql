-- An audit as its second schema made it, with four rows: what migration 0003 has to bring up to date.
PRAGMA application_id = 1128875057;
BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'callerid.audit','0001_decision_and_outcome','2026-11-23 22:01:22.673217+00:00');
INSERT INTO "_sqlite_migrations" VALUES(2,'callerid.audit','0002_direction_path_and_handle','2026-11-23 22:01:22.676820+00:00');
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
, kind TEXT, direction TEXT NOT NULL DEFAULT 'client' CHECK(direction IN ('client', 'server')), caused_by TEXT, path TEXT) STRICT;
INSERT INTO "decision" VALUES(1,'01a0c450-6c01-7000-8000-000000000001',1790000000001000,'allow','granted','tools/call','files','https://files.corp.example:443/mcp','user:alice@corp.example','local','claude-code','[]','[{"kind":"scoped_token","carrier":"proxy_authorization","credential_id":"tok_alice_1"}]','bearer','tok_alice_1',NULL,'192.0.2.7',NULL,NULL,'read_file','/srv/reports/q3.md','{"path":"/srv/reports/q3.md"}',0,'readers',NULL,'p1','files-shared@v1',NULL,NULL,NULL,NULL,NULL,NULL,NULL,'tool','client',NULL,'/mcp');
INSERT INTO "decision" VALUES(2,'01a0c450-6c02-7000-8000-000000000002',1790000000002000,'deny','no_grant','tools/call','warehouse','https://warehouse.corp.example:443/mcp','user:ivy@corp.example','local','claude-code','[]','[{"kind":"scoped_token","carrier":"proxy_authorization","credential_id":"tok_alice_1"}]','bearer','tok_ivy_1',NULL,'192.0.2.7',NULL,NULL,'drop_table','payroll','{"table":"payroll"}',0,NULL,NULL,'p1',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'client',NULL,NULL);
INSERT INTO "decision" VALUES(3,'01a0c450-6c03-7000-8000-000000000003',1790000000003000,'allow','granted','tools/call','files','https://files.corp.example:443/mcp','anonymous','local','claude-code','[]','[]','bearer','tok_alice_1',NULL,'192.0.2.7',NULL,NULL,'read_file','/srv/reports/q3.md','{"path":"/srv/reports/q3.md"}',0,'readers',NULL,'p1','files-shared@v1',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'client',NULL,NULL);
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
, handle TEXT) STRICT;
INSERT INTO "outcome" VALUES(1,'01a0c450-6c01-7000-8000-000000000001',1790000000043000,'ok',200,NULL,42000,1234,NULL,'h1');
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
CREATE INDEX outcome_handle ON outcome(handle) WHERE handle IS NOT NULL;
CREATE INDEX event_kind ON event(kind);
CREATE VIEW calls AS SELECT
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
  coalesce(d.detail || '; ' || o.detail, o.detail, d.detail) AS detail,
  d.batch_index AS batch_index,
  d.time_us AS time_us,
  d.seq AS seq,
  d.kind AS kind,
  d.direction AS direction,
  d.caused_by AS caused_by,
  d.path AS path,
  o.handle AS handle
FROM decision d LEFT JOIN outcome o ON o.event_id = d.event_id;
CREATE VIEW refusals AS SELECT time_utc, principal, agent, actors, evidence, assurance, credential_id, client_ip, server, upstream, method, tool, target, arguments, verdict, reason, rule, would_rule, policy, injected, outcome, http_status, rpc_code, duration_ms, request_bytes, response_bytes, protocol, session, rpc_id, trace_id, event_id, issuer, claimed_subject, client_name, user_agent, detail, batch_index, time_us, seq, kind, direction, caused_by, path, handle
FROM calls WHERE verdict <> 'allow';
CREATE VIEW servers_seen AS SELECT
  g.server AS server,
  g.upstream AS upstream,
  strftime('%Y-%m-%dT%H:%M:%fZ', g.first_us / 1e6, 'unixepoch') AS first_seen,
  strftime('%Y-%m-%dT%H:%M:%fZ', g.last_us / 1e6, 'unixepoch') AS last_seen,
  json_array_length(g.principals) AS callers,
  g.calls AS calls,
  g.refused AS refused,
  rtrim(rtrim(g.upstream, '0123456789'), ':') AS host,
  g.path AS path,
  substr(g.protocol, 17) AS protocol,  -- after the 16 digits of a time until the year 2286
  (SELECT json_group_array(value) FROM (SELECT value FROM json_each(g.tools) 
    UNION SELECT json_extract(t.value, '$.tool') FROM event e, json_each(e.detail, '$.tools') t
    WHERE e.kind = 'server_seen' AND json_valid(e.detail)
      AND json_extract(e.detail, '$.server') = g.server AND json_extract(e.detail, '$.upstream') = g.upstream
      AND json_extract(e.detail, '$.path') IS g.path ORDER BY value LIMIT 100)) AS tools,
  (SELECT json_group_array(value) FROM (SELECT value FROM json_each(g.principals)  ORDER BY value LIMIT 100)) AS caller_names,
  (SELECT json_group_array(value) FROM (SELECT value FROM json_each(g.agents)  ORDER BY value LIMIT 100)) AS agents,
  (SELECT json_group_array(value) FROM (SELECT 'scoped_token' AS value WHERE g.scoped_token UNION ALL SELECT 'jwt' AS value WHERE g.jwt UNION ALL SELECT 'client_cert' AS value WHERE g.client_cert UNION ALL SELECT 'own' AS value WHERE g.own UNION ALL SELECT 'rejected' AS value WHERE g.rejected UNION ALL SELECT 'none' AS value WHERE g.bare)) AS credentials,
  (SELECT json_group_array(value) FROM (SELECT value FROM json_each(g.clients)  ORDER BY value LIMIT 100)) AS clients,
  CASE WHEN g.governed THEN 1 WHEN g.unlisted THEN 0
    ELSE g.server NOT IN ('-', lower(replace(replace(g.upstream, '[', ''), ']', ''))) AND lower(replace(replace(g.upstream, '[', ''), ']', '')) NOT IN (g.server || ':443', g.server || ':80')
  END AS listed,
  g.calls - g.refused AS allowed
FROM (
  SELECT
    server, upstream, path,
    min(time_us) AS first_us,
    max(time_us) AS last_us,
    count(*) AS calls,
    sum(verdict <> 'allow') AS refused,
    json_group_array(DISTINCT principal) FILTER (WHERE principal IS NOT NULL AND principal <> 'anonymous') AS principals,
    json_group_array(DISTINCT agent) FILTER (WHERE agent IS NOT NULL) AS agents,
    json_group_array(DISTINCT client_name) FILTER (WHERE client_name IS NOT NULL) AS clients,
    json_group_array(DISTINCT tool) FILTER (WHERE tool IS NOT NULL AND coalesce(kind, 'tool') = 'tool') AS tools,
    max(time_us || protocol) AS protocol,
    max(instr(evidence, '"kind":"scoped_token"')) AS scoped_token,
    max(instr(evidence, '"kind":"jwt"')) AS jwt,
    max(instr(evidence, '"kind":"client_cert"')) AS client_cert,
    max(instr(coalesce(detail, ''), 'carries its own')) AS own,
    max(evidence = '[]' AND (credential_id IS NOT NULL OR claimed_subject IS NOT NULL)) AS rejected,
    max(evidence = '[]' AND credential_id IS NULL AND claimed_subject IS NULL
        AND instr(coalesce(detail, ''), 'carries its own') = 0) AS bare,
    max(reason IN ('granted', 'protocol', 'monitored', 'no_grant', 'rule_denied', 'requirement_failed',
                   'outside_scope')) AS governed,
    max(reason IN ('observed', 'unknown_server', 'address_refused')) AS unlisted
  FROM decision GROUP BY upstream, path, server
) g;
CREATE VIEW credential_use AS SELECT
  injected,
  server,
  principal,
  count(*) AS calls,
  strftime('%Y-%m-%dT%H:%M:%fZ', min(time_us) / 1e6, 'unixepoch') AS first,
  strftime('%Y-%m-%dT%H:%M:%fZ', max(time_us) / 1e6, 'unixepoch') AS last
FROM decision WHERE injected IS NOT NULL AND verdict = 'allow' GROUP BY injected, server, principal;
COMMIT;
PRAGMA user_version = 2;
