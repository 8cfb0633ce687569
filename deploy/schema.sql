-- What Outrigger itself keeps in the primary database. `outrigger --init-database --config FILE` creates the same, and may be run again.
-- For accounts: SELECT, INSERT, UPDATE, DELETE on these two; a sidecar never alters a table.

-- source: entries. Rows past expires_at do not exist for Outrigger; to be rid of them, from time to time:
--   DELETE FROM outrigger_entries WHERE expires_at < NOW(6) - INTERVAL 1 HOUR LIMIT 10000
CREATE TABLE IF NOT EXISTS `outrigger_entries` (
  `cache_key` VARBINARY(250) NOT NULL,
  `value` LONGBLOB NOT NULL,
  `flags` INT UNSIGNED NOT NULL DEFAULT 0,
  `version` BIGINT UNSIGNED NOT NULL,
  `updated_at` TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  `expires_at` TIMESTAMP(6) NULL DEFAULT NULL,
  PRIMARY KEY (`cache_key`)
) ENGINE=InnoDB;

-- By this row a replica shows how far it has come: one sidecar of the primary's region updates it, the others read it with their data.
CREATE TABLE IF NOT EXISTS `outrigger_heartbeat` (
  `id` TINYINT UNSIGNED NOT NULL,
  `version` BIGINT UNSIGNED NOT NULL,
  `owner` BIGINT UNSIGNED NOT NULL,
  `beat_at` DATETIME(6) NOT NULL,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB;
INSERT IGNORE INTO `outrigger_heartbeat` VALUES (1, 0, 0, '2000-01-01');
