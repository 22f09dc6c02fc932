package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/sqlstore"
)

// maxVerdicts bounds what SQLite is asked to find: the first says enough.
const maxVerdicts = 20

// OpenToCheck opens a file that is there to read it, and leaves it and its log as
// they are: no tables are made or changed, the log is not folded in. Writes are
// refused. CodeInvalid where there is no file, or one that this program's tables
// are not in; damage is left for Check to find, as far as that can be.
func OpenToCheck(ctx context.Context, o Options) (*Store, error) {
	st, err := os.Stat(o.Path)
	if err != nil || st.Size() == 0 {
		return nil, &fleet.Error{Code: fleet.CodeInvalid, Message: "there is no database " + o.Path, Err: err,
			Hint: "name the data folder of a server that was started once"}
	}
	if err := checkHead(o.Path); err != nil {
		return nil, err
	}
	s, err := newStore(o)
	if err != nil {
		return nil, err
	}
	s.readOnly, s.w = true, refuser()
	// A connection that may write would fold the log into the file when it is closed.
	if s.db, err = sql.Open("sqlite", dsnToRead(o.Path, "mode=ro", "_pragma=query_only(1)")); err != nil {
		return nil, err
	}
	s.readers = newReader(s.db, minReaders)
	if err := s.openToCheck(ctx, o.Path); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) openToCheck(ctx context.Context, path string) error {
	var id int64
	if err := s.db.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return openError(path, err)
	}
	if id != applicationID {
		return &fleet.Error{Code: fleet.CodeInvalid, Message: path + " is a database of another program", Hint: "name another folder with --data"}
	}
	have, want, err := versions(ctx, s.db)
	if err != nil {
		return openError(path, err)
	}
	switch {
	case have > want:
		return sqlstore.NewerError(path, have, want)
	case have < want:
		return &fleet.Error{Code: fleet.CodeInvalid,
			Message: fmt.Sprintf("%s is of an older version of this program (schema %d, this one's is %d)", path, have, want),
			Hint:    "check it with the version that wrote it, or start the server once: it brings the tables up to date"}
	}
	return nil
}

// refuser is a writer that takes nothing.
func refuser() *writer {
	w := &writer{queue: make(chan *write), stopping: make(chan struct{}), finished: make(chan struct{})}
	close(w.stopping)
	close(w.finished)
	return w
}

// checkHead looks at the first bytes: SQLite says of a file that is not its own
// no more than that.
func checkHead(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return &fleet.Error{Code: fleet.CodeInvalid, Message: "the database can't be opened", Err: err}
	}
	defer f.Close()
	head := make([]byte, len(fileHeader))
	if _, err := io.ReadFull(f, head); err != nil || string(head) != fileHeader {
		return noDatabase(path)
	}
	return nil
}

// Check looks for damage: the file's structure, references that lead nowhere, and
// sealed keys that the secret does not open. What it finds comes back as found,
// each with what to do; err is why it could not look.
func (s *Store) Check(ctx context.Context) (found []*fleet.Error, err error) {
	one := func(r sqlstore.Scanner) (v string, err error) { return v, r.Scan(&v) }
	verdicts, err := sqlstore.Collect(one)(s.db.QueryContext(ctx, fmt.Sprintf("PRAGMA integrity_check(%d)", maxVerdicts)))
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		verdicts = append(verdicts, err.Error())
	case len(verdicts) == 1 && verdicts[0] == "ok":
		verdicts = nil
	}
	for _, v := range verdicts {
		found = append(found, &fleet.Error{Code: fleet.CodeInternal, Message: "the database is damaged: " + v, Hint: damagedHint})
	}
	if len(found) > 0 {
		return found, nil // the rest would only repeat it
	}
	orphans, err := sqlstore.Collect(func(r sqlstore.Scanner) (v string, err error) {
		var table, parent string
		var row sql.NullInt64
		var key int
		err = r.Scan(&table, &row, &parent, &key)
		return fmt.Sprintf("a row of %s refers to %s that is not there", table, parent), err
	})(s.db.QueryContext(ctx, "PRAGMA foreign_key_check"))
	if err != nil {
		return nil, wrap("check", err)
	}
	for _, v := range orphans {
		found = append(found, &fleet.Error{Code: fleet.CodeInternal, Message: "the database is damaged: " + v, Hint: damagedHint})
	}
	seals, err := s.CheckSeals(ctx)
	return append(found, seals...), err
}
