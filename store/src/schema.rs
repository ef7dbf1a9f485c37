//! The tables of the index, as the steps that lead from one layout to the next.
//!
//! A new store takes every step, an older one those it lacks, in one transaction: there is one way to make each table and
//! one text to read. A step that was released is never edited; what changes is a further step.

/// Step `n` leads from layout `n` to layout `n + 1`; layout 0 is an empty database.
pub(crate) const STEPS: [&str; 6] = [FILES, KEEPING, NAMES, PROVIDING, LOOSE, STATEMENTS];

/// Version of the layout: of these tables and of the directories.
pub(crate) const LAYOUT: i64 = STEPS.len() as i64;

/// `blob.id` is never used again (AUTOINCREMENT): who found a blob damaged must not remove the one that replaced it.
/// `leaf` has a row for each chunk of each blob: a chunk that occurs in two blobs survives the loss of one.
/// `block` holds dag-pb nodes, derivation texts and other small blocks. All hashes are bare SHA-256 digests.
const FILES: &str = "
CREATE TABLE blob (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sha256 BLOB NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    root_codec INTEGER NOT NULL,
    root BLOB NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL
) STRICT;
CREATE INDEX blob_by_root ON blob (root);
CREATE TABLE leaf (
    hash BLOB NOT NULL,
    blob INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    PRIMARY KEY (hash, blob)
) STRICT, WITHOUT ROWID;
CREATE TABLE block (
    id INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    bytes BLOB NOT NULL
) STRICT;
CREATE TABLE derivation (pkghash BLOB NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE realisation (
    pkghash BLOB NOT NULL,
    bytes BLOB NOT NULL,
    output BLOB NOT NULL,
    PRIMARY KEY (pkghash, bytes)
) STRICT, WITHOUT ROWID;
CREATE TABLE pin (
    class INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    pkghash BLOB NOT NULL,
    name TEXT NOT NULL,
    added INTEGER NOT NULL,
    PRIMARY KEY (class, sha256, pkghash, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE provide (
    hash BLOB NOT NULL PRIMARY KEY,
    kind INTEGER NOT NULL,
    due INTEGER NOT NULL,
    provided INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX provide_by_due ON provide (due);
";

/// What keeping and collecting need. `blob.path` is set for files that are served where their owner put them, `blob.used`
/// is the hour of the last use since 1970. `note` says what a blob is without keeping it: before this step builds pinned
/// their outputs, and nobody could pin one by wish, so those pins become notes. `total` spares adding up every size
/// each time the quota is looked at; triggers keep it right whoever writes.
const KEEPING: &str = "
ALTER TABLE blob ADD COLUMN path BLOB;
ALTER TABLE blob ADD COLUMN used INTEGER NOT NULL DEFAULT 0;
UPDATE blob SET used = mtime_ns / 3600000000000;
CREATE INDEX leaf_by_blob ON leaf (blob);
CREATE INDEX realisation_by_output ON realisation (output);
CREATE INDEX pin_by_blob ON pin (sha256);
CREATE TABLE note (
    class INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    pkghash BLOB NOT NULL,
    name TEXT NOT NULL,
    added INTEGER NOT NULL,
    PRIMARY KEY (class, sha256, pkghash, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX note_by_blob ON note (sha256);
INSERT INTO note SELECT class, sha256, pkghash, name, added FROM pin WHERE class = 2;
DELETE FROM pin WHERE class = 2;
CREATE TABLE total (bytes INTEGER NOT NULL) STRICT;
INSERT INTO total SELECT coalesce(sum(size), 0) FROM blob;
CREATE TRIGGER blob_taken_in AFTER INSERT ON blob WHEN new.path IS NULL
BEGIN UPDATE total SET bytes = bytes + new.size; END;
CREATE TRIGGER blob_forgotten AFTER DELETE ON blob WHEN old.path IS NULL
BEGIN UPDATE total SET bytes = bytes - old.size; END;
";

/// The newest record seen of each name. Sequences are eight bytes, the most significant first, because SQLite's integers have
/// a sign.
const NAMES: &str = "
CREATE TABLE IF NOT EXISTS name_record (
    name BLOB NOT NULL PRIMARY KEY,
    sequence BLOB NOT NULL,
    record BLOB NOT NULL,
    published INTEGER
) STRICT, WITHOUT ROWID;
";

/// `provide.made` tells what was made or added here from what was merely fetched; of older keys that is not known, and they
/// count as fetched; `provide.others` is how many others are known to provide the key. `announced` holds the addresses that the
/// provider records out there carry.
const PROVIDING: &str = "
ALTER TABLE provide ADD COLUMN made INTEGER NOT NULL DEFAULT 0;
ALTER TABLE provide ADD COLUMN others INTEGER;
CREATE TABLE announced (address BLOB NOT NULL PRIMARY KEY) STRICT, WITHOUT ROWID;
";

/// `loose` has a row for each block that is neither a node of a blob nor a derivation text, and `loose_part` says of what it is
/// part: a blob, of another form, or the root block of something that is no file. Its bytes count in `total`. Which blocks of before are loose is seen by what they are not; where
/// a blob is so long that it has nodes below its root (1 GiB), they are left alone.
const LOOSE: &str = "
CREATE TABLE loose (
    hash BLOB NOT NULL PRIMARY KEY,
    size INTEGER NOT NULL,
    used INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE loose_part (
    whole BLOB NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (hash, whole)
) STRICT, WITHOUT ROWID;
CREATE INDEX loose_part_by_whole ON loose_part (whole);
CREATE TRIGGER loose_taken_in AFTER INSERT ON loose
BEGIN UPDATE total SET bytes = bytes + new.size; END;
CREATE TRIGGER loose_forgotten AFTER DELETE ON loose
BEGIN
    UPDATE total SET bytes = bytes - old.size;
    DELETE FROM loose_part WHERE hash = old.hash;
END;
CREATE TRIGGER block_forgotten AFTER DELETE ON block
BEGIN DELETE FROM loose WHERE hash = old.hash; END;
INSERT INTO loose (hash, size, used)
    SELECT hash, length(bytes), 0 FROM block
    WHERE hash NOT IN (SELECT root FROM blob) AND hash NOT IN (SELECT pkghash FROM derivation)
    AND NOT EXISTS (SELECT 1 FROM blob WHERE size >= 1073741824);
";

/// `realisation.hash` is the SHA-256 of a signed statement, by which it is served as the block that it is. SQLite computes none, so
/// those of before get theirs when this step was made, see `index`.
const STATEMENTS: &str = "
ALTER TABLE realisation ADD COLUMN hash BLOB;
CREATE INDEX realisation_by_hash ON realisation (hash);
";

/// The first layout, for tests of the way from it.
#[cfg(test)]
pub(crate) const FIRST: &str = FILES;
