package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"

	lib "modernc.org/sqlite/lib"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/sqlstore"
)

const (
	// maxBatch bounds a transaction, so that the first of its writes does not wait
	// for long: at some 50 us a write, 256 of them are less than a disk's flush.
	maxBatch = 256
	// maxWaiting bounds the writes that wait for a transaction. More are refused
	// with CodeBusy: a client that comes back later is cheaper than a queue.
	maxWaiting = 4096
)

// writer is the database's one writer: a goroutine with a connection of its own
// that takes all writes that wait into one transaction and answers them after
// its COMMIT, which flushes the disk once for all of them (group commit).
//
//	W1 a write is answered with nil only after the COMMIT that holds it
//	W2 a write that fails leaves nothing, and does not touch the others of its batch
//	W3 after a COMMIT that failed on the disk nothing is written any more: pages
//	   that the kernel dropped unflushed may be missing from the middle of the log,
//	   and whatever is acknowledged behind them would be lost at the next start
type writer struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt // by text; the goroutine's own

	queue    chan *write
	stopping chan struct{} // closed: no more writes
	finished chan struct{} // closed: the goroutine has ended

	broken error // W3; the goroutine's own
	// commit ends a transaction; tests replace it.
	commit func() error

	transactions atomic.Int64 // for tests and figures: how well writes were gathered
	ran          atomic.Int64 // statements of writes
}

// Where a write is. A waiter that gives up takes it back only as long as it waits.
const (
	writeWaits int32 = iota
	writeRuns
	writeTakenBack
)

type write struct {
	do    func(*tx) error
	state atomic.Int32
	done  chan struct{} // closed once err is set
	err   error
}

// tx is what a write's function gets: statements in the batch's transaction.
// Rows must be closed before the next statement.
type tx struct{ w *writer }

func newWriter(ctx context.Context, db *sql.DB) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{
		conn:     conn,
		stmts:    map[string]*sql.Stmt{},
		queue:    make(chan *write, maxWaiting),
		stopping: make(chan struct{}),
		finished: make(chan struct{}),
	}
	w.commit = func() error { return w.exec("COMMIT") }
	go w.run()
	return w, nil
}

// Do runs f in a transaction with other writes and returns after its COMMIT, or
// with f's error. f may run once at most, in another goroutine. Once f runs, the
// end of ctx no longer matters: the answer says what became of the write.
func (w *writer) Do(ctx context.Context, f func(*tx) error) error {
	q := &write{do: f, done: make(chan struct{})}
	select {
	case <-w.stopping:
		return errStopping()
	default:
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case w.queue <- q:
	default:
		return &fleet.Error{Code: fleet.CodeBusy, Message: "too many writes are waiting", Hint: "try again in a moment"}
	}
	select {
	case <-q.done:
		return q.err
	case <-ctx.Done():
		if q.state.CompareAndSwap(writeWaits, writeTakenBack) {
			return ctx.Err()
		}
	case <-w.finished:
		if q.state.CompareAndSwap(writeWaits, writeTakenBack) {
			return errStopping()
		}
	}
	<-q.done
	return q.err
}

func errStopping() error {
	return &fleet.Error{Code: fleet.CodeBusy, Message: "the server is stopping", Hint: "try again in a moment"}
}

// close writes what waits and ends the goroutine.
func (w *writer) close() error {
	close(w.stopping)
	<-w.finished
	for _, s := range w.stmts {
		s.Close()
	}
	return w.conn.Close()
}

func (w *writer) run() {
	defer close(w.finished)
	batch := make([]*write, 0, maxBatch)
	for {
		batch = batch[:0]
		select {
		case q := <-w.queue:
			batch = append(batch, q)
		case <-w.stopping:
			// What was queued before the stop is still written.
			select {
			case q := <-w.queue:
				batch = append(batch, q)
			default:
				return
			}
		}
		for len(batch) < maxBatch && len(w.queue) > 0 {
			batch = append(batch, <-w.queue) // nobody else takes from it
		}
		w.write(batch)
	}
}

// write runs a batch in one transaction and answers each.
func (w *writer) write(batch []*write) {
	mine := batch[:0]
	for _, q := range batch {
		if q.state.CompareAndSwap(writeWaits, writeRuns) {
			mine = append(mine, q)
		}
	}
	if len(mine) == 0 {
		return
	}
	err := w.transact(mine)
	for _, q := range mine {
		if q.err == nil {
			q.err = err
		}
		q.err = wrap("write", q.err)
		close(q.done)
	}
}

// transact runs the writes and commits. Its error is that of every write that
// has none of its own.
func (w *writer) transact(batch []*write) (err error) {
	if w.broken != nil {
		return w.broken
	}
	if err := w.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	w.transactions.Add(1)
	good := 0
	for _, q := range batch {
		var gone bool
		gone, q.err = w.runOne(q, len(batch) > 1)
		if gone {
			// With the transaction the good ones are gone too. Nothing may run now before
			// the next BEGIN: it would commit by itself.
			w.exec("ROLLBACK")
			return q.err
		}
		if q.err == nil {
			good++
		}
	}
	if good == 0 {
		return w.exec("ROLLBACK")
	}
	if err := w.commit(); err != nil {
		w.exec("ROLLBACK")
		if resultCode(err)&primary == lib.SQLITE_IOERR {
			w.broken = &fleet.Error{Code: fleet.CodeInternal, Message: "the database can no longer be written: the disk failed", Err: err,
				Hint: "check the data folder's disk and start the server again"}
			return w.broken
		}
		return err
	}
	return nil
}

// runOne runs one write and undoes it alone where it fails. Alone in its
// transaction it needs no savepoint. gone: the transaction is lost.
func (w *writer) runOne(q *write, shared bool) (gone bool, err error) {
	t := &tx{w}
	if !shared {
		return false, q.do(t)
	}
	if err := w.exec("SAVEPOINT one"); err != nil {
		return true, err
	}
	if err := q.do(t); err != nil {
		if mayLose(err) {
			return true, err
		}
		if back := w.exec("ROLLBACK TO one"); back != nil {
			return true, errors.Join(err, back)
		}
		if back := w.exec("RELEASE one"); back != nil {
			return true, errors.Join(err, back)
		}
		return false, err
	}
	if err := w.exec("RELEASE one"); err != nil {
		return true, err
	}
	return false, nil
}

// mayLose says whether SQLite may have rolled back the whole transaction with
// the error (sqlite.org/lang_transaction.html, "Response To Errors Within A
// Transaction"), or is in no state to go on with it.
func mayLose(err error) bool {
	switch resultCode(err) & primary {
	case lib.SQLITE_FULL, lib.SQLITE_IOERR, lib.SQLITE_NOMEM, lib.SQLITE_BUSY, lib.SQLITE_INTERRUPT, lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		return true
	}
	return false
}

func (w *writer) stmt(text string) (*sql.Stmt, error) {
	w.ran.Add(1)
	if s, ok := w.stmts[text]; ok {
		return s, nil
	}
	s, err := w.conn.PrepareContext(context.Background(), text)
	if err == nil {
		w.stmts[text] = s
	}
	return s, err
}

func (w *writer) exec(text string) error {
	s, err := w.stmt(text)
	if err != nil {
		return err
	}
	_, err = s.Exec()
	return err
}

// Exec runs a statement; its text is a constant, it is prepared once.
func (t *tx) Exec(text string, args ...any) (sql.Result, error) {
	s, err := t.w.stmt(text)
	if err != nil {
		return nil, err
	}
	return s.Exec(args...)
}

// Row runs a query of one row.
func (t *tx) Row(text string, args ...any) sqlstore.Scanner {
	s, err := t.w.stmt(text)
	if err != nil {
		return failedRow{err}
	}
	return s.QueryRow(args...)
}

// Query runs a query; its rows are read to their end before the next statement.
func (t *tx) Query(text string, args ...any) (*sql.Rows, error) {
	s, err := t.w.stmt(text)
	if err != nil {
		return nil, err
	}
	return s.Query(args...)
}

type failedRow struct{ err error }

func (r failedRow) Scan(...any) error { return r.err }
