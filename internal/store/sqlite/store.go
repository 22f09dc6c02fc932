// Package sqlite keeps the domain in one SQLite file (modernc.org/sqlite, no
// cgo): the file, its tables and its transactions. The statements are
// internal/store/sqlstore's.
//
// All writes go through one goroutine that gathers those that wait into one
// transaction (writer.go); reads go to a pool of connections beside it, as WAL
// allows. synchronous=FULL: what was answered is on the disk, also after a power
// loss. One process at a time may open a file: internal/datadir sees to it.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/sqlstore"
)

const (
	// applicationID marks a SQLite file as ours: "RNNL".
	applicationID = 0x524E4E4C
	// busyMillis is how long a write waits for another program, e.g. a backup.
	busyMillis = 5000
	// checkBytes is up to which size a file is checked whole when it is opened
	// (PRAGMA quick_check reads all of it, some 200 MB/s); larger ones are found
	// out at the damaged page.
	checkBytes = 256 << 20
	// walKeepBytes bounds what the log keeps of the disk after a burst.
	walKeepBytes = 64 << 20
	minReaders   = 4

	fileHeader = "SQLite format 3\x00" // sqlite.org/fileformat2.html, 1.3
)

// Options of Open.
type Options struct {
	Path   string   // of the file; made, mode 0600, where there is none
	Secret [32]byte // seals keys; the same for ever for one file
	Random io.Reader
	// Migrating is told before tables of an older program are brought up to date, which takes seconds
	// with a large fleet: from which schema, and to which. nil: nobody is.
	Migrating func(from, to int64)

	params []string // of the driver, on every connection: for tests
}

// Store is an open database. Its methods may be called concurrently.
type Store struct {
	*sqlstore.Store
	db      *sql.DB // the writer's
	readers *reader
	w       *writer

	readOnly bool
}

// Statements is how many statements have run: for tests and figures.
func (s *Store) Statements() int64 { return s.readers.ran.Load() + s.w.ran.Load() }

// Open opens the file, makes its tables or brings them up to date. A file of a
// newer program, a damaged one, one of something else and one whose keys were
// sealed under another secret are refused with CodeInvalid.
func Open(ctx context.Context, o Options) (*Store, error) {
	size, err := prepareFile(o.Path)
	if err != nil {
		return nil, err
	}
	s, err := newStore(o)
	if err != nil {
		return nil, err
	}
	if s.db, err = sql.Open("sqlite", dsn(o.Path, append([]string{"_txlock=immediate"}, o.params...)...)); err != nil {
		return nil, err
	}
	s.db.SetMaxOpenConns(1)
	if err := s.open(ctx, o, size); err != nil {
		s.Close()
		if !errors.Is(err, context.Canceled) && fleet.CodeOf(err) == fleet.CodeInternal {
			err = openError(o.Path, err)
		}
		return nil, err
	}
	return s, nil
}

// newStore is one whose database is not open yet.
func newStore(o Options) (*Store, error) {
	s := &Store{}
	var err error
	s.Store, err = sqlstore.New(database{s}, dialect, sqlstore.Options{Secret: o.Secret, Random: o.Random})
	return s, err
}

// dialect is SQLite's.
var dialect = sqlstore.Dialect{
	IDs:  func(p string) string { return "json_each(" + p + ") j" },
	Rows: func(columns string) string { return "json_group_array(json_array(" + columns + "))" },
}

// database is the store's file, as the statements see it.
type database struct{ *Store }

func (d database) Write(ctx context.Context, _ string, f func(sqlstore.Runner) error) error {
	return d.w.Do(ctx, func(t *tx) error { return f(t) })
}

func (d database) Read(ctx context.Context, op string, f func(sqlstore.Runner) error) error {
	return d.read(ctx, op, func(v *view) error { return f(v) })
}

func (d database) Row(ctx context.Context, text string, args ...any) sqlstore.Scanner {
	return d.readers.row(ctx, text, args...)
}

func (d database) Wrap(op string, err error) error { return wrap(op, err) }

func (s *Store) open(ctx context.Context, o Options, size int64) error {
	path := o.Path
	if err := s.identify(ctx, path); err != nil {
		return err
	}
	if size > 0 && size <= checkBytes {
		if err := s.check(ctx, path); err != nil {
			return err
		}
	}
	if err := migrate(ctx, s.db, path, o.Migrating); err != nil {
		return err
	}
	var err error
	if s.w, err = newWriter(ctx, s.db); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", dsn(path, append([]string{"_pragma=query_only(1)"}, o.params...)...))
	if err != nil {
		return err
	}
	s.readers = newReader(db, max(minReaders, runtime.NumCPU()))
	return s.Start(ctx)
}

// Close writes what waits and closes the file. The log is folded into it, so
// that a copy of runnel.db alone is whole.
func (s *Store) Close() error {
	var errs []error
	if s.readOnly {
		return s.readers.close() // db is the same
	}
	if s.w != nil {
		errs = append(errs, s.w.close())
	}
	if s.readers != nil {
		errs = append(errs, s.readers.close())
	}
	if s.w != nil {
		_, err := s.db.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
		errs = append(errs, err)
	}
	errs = append(errs, s.db.Close())
	return errors.Join(errs...)
}

// prepareFile makes the file with its mode before SQLite would make it with the
// umask's, and looks at the first bytes of one that is there. It returns the size.
func prepareFile(path string) (int64, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		e := &fleet.Error{Code: fleet.CodeInvalid, Message: "the database can't be opened", Err: err}
		if errors.Is(err, fs.ErrPermission) {
			e.Hint = "this user must be allowed to read and write it"
		}
		return 0, e
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if st.Size() == 0 {
		return 0, nil
	}
	head := make([]byte, len(fileHeader))
	if _, err := io.ReadFull(f, head); err != nil || string(head) != fileHeader {
		if j, err := os.Stat(path + "-journal"); err == nil && j.Size() > 0 {
			return 0, nil // the power went while it was made: SQLite takes that back
		}
		return 0, noDatabase(path)
	}
	return st.Size(), nil
}

func noDatabase(path string) error {
	return &fleet.Error{Code: fleet.CodeInvalid, Message: path + " is no SQLite database, or its beginning is damaged", Hint: damagedHint}
}

// dsn is the driver's name for the file, with what every connection sets.
func dsn(path string, more ...string) string {
	return dsnToRead(path, append([]string{
		"_pragma=journal_mode(WAL)",
		"_pragma=synchronous(FULL)",
		"_pragma=foreign_keys(1)",
		fmt.Sprintf("_pragma=journal_size_limit(%d)", walKeepBytes),
	}, more...)...)
}

// dsnToRead sets nothing that would write to the file.
func dsnToRead(path string, more ...string) string {
	params := append([]string{fmt.Sprintf("_pragma=busy_timeout(%d)", busyMillis), "_pragma=trusted_schema(0)", "_dqs=0"}, more...)
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: strings.Join(params, "&")}
	if !strings.HasPrefix(u.Path, "/") {
		// A relative path, or one with a drive letter: SQLite wants it right behind "file:" or
		// behind a third slash.
		if filepath.IsAbs(path) {
			u.Path = "/" + u.Path
		} else {
			u.Opaque = (&url.URL{Path: u.Path}).EscapedPath()
		}
	}
	return u.String()
}

// identify refuses somebody else's database, and marks a new one as ours.
func (s *Store) identify(ctx context.Context, path string) error {
	var id, objects int64
	if err := s.db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return err
	}
	if id == applicationID {
		return nil
	}
	if err := s.db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&objects); err != nil {
		return err
	}
	if id != 0 || objects != 0 {
		return &fleet.Error{Code: fleet.CodeInvalid, Message: path + " is a database of another program", Hint: "name another folder with --data"}
	}
	_, err := s.db.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	return err
}

// check looks for damage before it is built upon.
func (s *Store) check(ctx context.Context, path string) error {
	var verdict string
	if err := s.db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return &fleet.Error{Code: fleet.CodeInvalid, Message: path + " is damaged", Hint: damagedHint, Err: errors.New(verdict)}
	}
	return nil
}

// openError is what a file that can't be used is refused with.
func openError(path string, err error) error {
	e := wrap("open", err)
	var f *fleet.Error
	if errors.As(e, &f) {
		c := *f
		c.Code, c.Message = fleet.CodeInvalid, path+": "+f.Message
		return &c
	}
	return e
}
