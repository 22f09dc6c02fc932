package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/sqlstore"
)

const damagedHint = "stop the servers, keep a copy, and bring a backup back"

// OpenToCheck opens a database that is there to read it: no tables are made or changed, and
// writes are refused. CodeInvalid where this program's tables are not in it. Servers may use
// it meanwhile.
func OpenToCheck(ctx context.Context, o Options) (*Store, error) {
	c, err := config(o.URL)
	if err != nil {
		return nil, err
	}
	c.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
	p, err := newPool(ctx, c)
	if err != nil {
		return nil, openError(c, err)
	}
	s := &Store{durable: p, light: p, exposed: exposed(c)}
	if err := s.openToCheck(ctx, o, name(c)); err != nil {
		return nil, errors.Join(openError(c, err), s.Close())
	}
	return s, nil
}

func (s *Store) openToCheck(ctx context.Context, o Options, name string) (err error) {
	if s.Store, err = sqlstore.New(database{s}, dialect, sqlstore.Options{Secret: o.Secret, Random: o.Random}); err != nil {
		return err
	}
	if err := s.identify(ctx); err != nil {
		return err
	}
	m, err := migrations(s.light.sql)
	if err != nil {
		return err
	}
	have, want, err := versions(ctx, m, s.light.sql)
	switch {
	case err != nil:
		return err
	case have == 0:
		return &fleet.Error{Code: fleet.CodeInvalid, Message: name + " holds no fleet", Hint: "name the database that the servers are started with"}
	case have > want:
		return sqlstore.NewerError(name, have, want)
	case have < want:
		return &fleet.Error{Code: fleet.CodeInvalid,
			Message: fmt.Sprintf("%s is of an older version of this program (schema %d, this one's is %d)", name, have, want),
			Hint:    "check it with the version that wrote it, or start a server once: it brings the tables up to date"}
	}
	return nil
}

// Check looks for damage: rows that can't be read, references that lead nowhere, and
// sealed keys that the secret does not open. What it finds comes back as found, each with
// what to do; err is why it could not look. Indexes are pg_amcheck's.
func (s *Store) Check(ctx context.Context) (found []*fleet.Error, err error) {
	for _, t := range sqlstore.Tables {
		// As text, so that the parts of a row that are kept elsewhere are read too.
		text := "SELECT coalesce(sum(octet_length(row_of::text)), 0) FROM " + t.Name + " row_of"
		if _, err := s.number(ctx, text); damaged(err) {
			found = append(found, &fleet.Error{Code: fleet.CodeInternal, Message: "the database is damaged: table " + t.Name + " can't be read", Err: said(err), Hint: damagedHint})
		} else if err != nil {
			return found, err
		}
	}
	if len(found) > 0 {
		return found, nil // the rest would only repeat it
	}
	references, err := s.references(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range references {
		n, err := s.number(ctx, r.lost)
		if err != nil {
			return found, err
		}
		if n > 0 {
			found = append(found, &fleet.Error{Code: fleet.CodeInternal, Hint: damagedHint,
				Message: fmt.Sprintf("the database is damaged: %d rows of %s refer to %s that are not there", n, r.table, r.parent)})
		}
	}
	seals, err := s.CheckSeals(ctx)
	return append(found, seals...), err
}

// number runs a query of one number.
func (s *Store) number(ctx context.Context, text string) (n int64, err error) {
	err = database{s}.Read(ctx, "check", func(r sqlstore.Runner) error { return r.Row(text).Scan(&n) })
	return n, err
}

// reference is a foreign key; lost is the query that counts rows whose parent is not there. The
// database keeps them, but for what was done to it with its triggers off.
type reference struct{ table, parent, lost string }

func (s *Store) references(ctx context.Context) (list []reference, err error) {
	scan := sqlstore.Collect(func(r sqlstore.Scanner) (f reference, err error) { return f, r.Scan(&f.table, &f.parent, &f.lost) })
	err = database{s}.Read(ctx, "check", func(r sqlstore.Runner) error {
		list, err = scan(r.Query(`SELECT f.conrelid::regclass::text, f.confrelid::regclass::text,
 format('SELECT count(*) FROM %s a WHERE %s AND NOT EXISTS (SELECT 1 FROM %s b WHERE %s)', f.conrelid::regclass, string_agg(format('a.%I IS NOT NULL', c.attname), ' AND '),
  f.confrelid::regclass, string_agg(format('a.%I = b.%I', c.attname, p.attname), ' AND '))
FROM pg_constraint f CROSS JOIN LATERAL unnest(f.conkey, f.confkey) k (child, parent)
JOIN pg_attribute c ON c.attrelid = f.conrelid AND c.attnum = k.child JOIN pg_attribute p ON p.attrelid = f.confrelid AND p.attnum = k.parent
WHERE f.contype = 'f' AND f.connamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
GROUP BY f.oid, f.conrelid, f.confrelid ORDER BY 1, 2`))
		return err
	})
	return list, err
}

// damaged: what is stored can't be read, by the database's word: its class XX (internal errors, and
// corruption among them) or 58 (the file can't be read, or is gone).
func damaged(err error) bool {
	state := stateOf(err)
	return strings.HasPrefix(state, "XX") || strings.HasPrefix(state, "58")
}

// said is the database's own word in an error.
func said(err error) error {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e
	}
	return err
}
