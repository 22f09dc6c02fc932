package sqlstore

// Dialect is what databases say in other words, and how transactions that write are
// kept apart: SQLite has one writer, and needs no lock.
type Dialect struct {
	// IDs is a table j with a column value, of the JSON array that the parameter p is.
	IDs func(p string) string
	// Rows aggregates the columns of all rows into a JSON array of arrays, as text; [] where there is none.
	Rows func(columns string) string
	// JSON is a column of text as ->> takes it; nil: as it is.
	JSON func(column string) string

	// ForUpdate, behind a SELECT of devices d, keeps its row from others until the COMMIT.
	ForUpdate string
	// LockDevice and LockRollout do so with one parameter, an id. Whoever takes both takes the rollout first.
	LockDevice, LockRollout string
	// LockCatalogue keeps others out that change what an operator changes. It comes before all other locks.
	LockCatalogue string
	// TryStep answers whether the transaction is the only one that steps rollouts. "": it is.
	TryStep string
	// Replicas: several servers share the database. What the catalogue's generation is, only
	// the database knows.
	Replicas bool
}

func (d *Dialect) json(column string) string {
	if d.JSON == nil {
		return column
	}
	return d.JSON(column)
}

// texts are the statements that differ.
type texts struct {
	poll     string // ?1 a device, ?2 and ?3 JSON arrays of releases and of rollouts
	pollBare string // where both are empty: ?1 alone
	pollTake string // beside them ?4 a time, ?5 a nonce, ?6 a boot counter, ?7 the keys' version
	active   string // a condition: deployment u takes a place of the concurrency of rollout o
}

func newTexts(d *Dialect) texts {
	var t texts
	t.active = `u.rollout = o.id AND u.state IN ('offered', 'downloading', 'verifying', 'rebooting', 'trial', 'unproven') AND
  u.heard > (SELECT clock FROM fleet_clock) - CAST(` + d.json("o.course") + ` ->> 'silence' AS bigint) / 1000`
	deployments, usage := pollParts(d, t.active)
	// Whether a device has keys is not asked: who polls has one, and knows which.
	bare := unnamed(deviceRow+", d.native_boot, d.native_verdict, d.native_keys") + ", (SELECT generation FROM catalogue) AS c, (SELECT clock FROM fleet_clock) AS c, "
	columns := bare + deployments + " AS c, " + usage + " AS c"
	const from = " FROM devices d WHERE d.id = ?1"
	t.poll = "SELECT " + columns + from
	t.pollBare = "SELECT " + bare + "'[]' AS c, '[]' AS c" + from
	// The SELECT sees the row as it was before the UPDATE beside it.
	t.pollTake = "WITH taken AS (UPDATE devices SET " + seenNatively("?4", "?5", "?6", "?8") + " WHERE id = ?1 AND native_nonce < ?5 AND native_keys = ?7 RETURNING 1) SELECT " +
		columns + ", EXISTS (SELECT 1 FROM taken)" + from
	return t
}

// pollParts are what a poll looks up beside the device.
func pollParts(d *Dialect, active string) (deployments, usage string) {
	// Of the device, of the releases that were asked for, in all their builds. The joins are in this
	// order: a release has a few builds, a device may have had many releases.
	deployments = "(SELECT " + d.Rows(`q.release_id, b.version, q.state, q.reason, q.proven, q.started_at, q.updated_at,
  coalesce(q.rollout, 0), q.phase, q.class, q.tries, q.heard, q.raw_only`) + ` FROM
 (SELECT CAST(j.value AS bigint) AS id FROM ` + d.IDs("?2") + ` UNION SELECT c.id FROM ` + d.IDs("?2") + ` CROSS JOIN releases a CROSS JOIN releases c
   WHERE a.id = CAST(j.value AS bigint) AND c.product = a.product AND c.epoch = a.epoch AND c.sequence = a.sequence AND c.manifest_digest IS NOT NULL) w
 CROSS JOIN deployments q CROSS JOIN releases b WHERE q.device = ?1 AND q.release_id = w.id AND b.id = w.id)`
	// What the rollouts that were asked for have spent of their budgets: what no rule asks for is not
	// counted, and what is counted has a bound (fleet.MaxCount, MaxConcurrency).
	usage = "(SELECT " + d.Rows(`o.id,
  CASE WHEN `+d.json("o.course")+` -> 'phases' -> CAST(o.phase AS integer) ->> 'kind' = 'count' THEN (SELECT count(*) FROM deployments u WHERE u.rollout = o.id) ELSE 0 END,
  CASE WHEN CAST(`+d.json("o.course")+` ->> 'concurrency' AS bigint) > 0 THEN (SELECT count(*) FROM deployments u WHERE `+active+`) ELSE 0 END, o.next_at`) +
		" FROM " + d.IDs("?3") + " CROSS JOIN rollouts o WHERE o.id = CAST(j.value AS bigint))"
	return deployments, usage
}

// PollParts are the queries inside a poll's statement, for tests of how they are run: of parameters
// ?1 (a device), ?2 and ?3 (JSON arrays of releases and rollouts).
func PollParts(d Dialect) []string {
	deployments, usage := pollParts(&d, newTexts(&d).active)
	return []string{deployments, usage}
}
