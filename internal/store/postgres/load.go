package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/jackc/pgx/v5"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/sqlstore"
)

// errStopped ends a reading whose rows nobody wants any more.
var errStopped = errors.New("stopped")

// Load copies a whole store into this one, which has to be new: CodeConflict where it
// holds anything. What was written is read again and compared, by counts and digests, before
// the COMMIT; an error leaves nothing. progress is called now and then.
func (s *Store) Load(ctx context.Context, from *sqlstore.Store, progress func(table string, rows int64)) (sums []*sqlstore.Sum, err error) {
	conn, err := s.durable.pgx.Acquire(ctx)
	if err != nil {
		return nil, wrap("load", err)
	}
	defer conn.Release()
	err = pgx.BeginFunc(ctx, conn, func(t pgx.Tx) error {
		sums, err = load(ctx, t, from, progress)
		return err
	})
	if err != nil {
		return nil, wrap("load", err)
	}
	// What queries are planned by; without it the first hours are slow.
	_, err = conn.Exec(ctx, "ANALYZE")
	return sums, wrap("load", err)
}

func load(ctx context.Context, t pgx.Tx, from *sqlstore.Store, progress func(string, int64)) (sums []*sqlstore.Sum, err error) {
	if _, err := t.Exec(ctx, dialect.LockCatalogue); err != nil {
		return nil, err
	}
	for _, table := range sqlstore.Tables {
		if table.Single {
			if _, err := t.Exec(ctx, "DELETE FROM "+table.Name); err != nil {
				return nil, err
			}
			continue
		}
		var any bool
		if err := t.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM "+table.Name+")").Scan(&any); err != nil {
			return nil, err
		}
		if any {
			return nil, &fleet.Error{Code: fleet.CodeConflict, Message: "the database holds a fleet already: there are rows in " + table.Name,
				Hint: "make a new one with CREATE DATABASE; if an earlier move came to its end, start the servers on this one"}
		}
	}
	for _, table := range sqlstore.Tables {
		sum, err := loadTable(ctx, t, table, from, progress)
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", table.Name, err)
		}
		sums = append(sums, sum)
	}
	for i, table := range sqlstore.Tables {
		sum, err := sumOf(ctx, t, table)
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", table.Name, err)
		}
		if want := sums[i]; sum.Rows != want.Rows || sum.Digest() != want.Digest() {
			return nil, &fleet.Error{Code: fleet.CodeInternal, Message: fmt.Sprintf("table %s has %d rows of digest %s there and %d of digest %s here: nothing was moved", table.Name, want.Rows, want.Digest(), sum.Rows, sum.Digest())}
		}
	}
	return sums, nil
}

func loadTable(ctx context.Context, t pgx.Tx, table sqlstore.Table, from *sqlstore.Store, progress func(string, int64)) (*sqlstore.Sum, error) {
	sum := sqlstore.NewSum(table)
	next, stop := iter.Pull2(func(yield func([]any, error) bool) {
		err := from.Rows(ctx, table, func(row []any) error {
			if err := sum.Add(row); err != nil {
				return err
			}
			if !yield(row, nil) {
				return errStopped
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStopped) {
			yield(nil, err)
		}
	})
	defer stop()
	_, err := t.CopyFrom(ctx, pgx.Identifier{table.Name}, table.Columns, pgx.CopyFromFunc(func() ([]any, error) {
		row, err, ok := next()
		if !ok {
			return nil, nil
		}
		progress(table.Name, sum.Rows)
		return row, err
	}))
	if err != nil {
		return nil, err
	}
	if table.Numbered {
		if _, err := t.Exec(ctx, fmt.Sprintf("SELECT setval(pg_get_serial_sequence('%s', 'id'), greatest(coalesce(max(id), 1), 1), max(id) IS NOT NULL) FROM %s", table.Name, table.Name)); err != nil {
			return nil, err
		}
	}
	return sum, nil
}

// sumOf reads a table of this database.
func sumOf(ctx context.Context, t pgx.Tx, table sqlstore.Table) (*sqlstore.Sum, error) {
	sum := sqlstore.NewSum(table)
	rows, err := t.Query(ctx, table.Query())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		row, err := rows.Values()
		if err != nil {
			return nil, err
		}
		for i, v := range row {
			if n, ok := v.(int16); ok {
				row[i] = int64(n)
			}
		}
		if err := sum.Add(row); err != nil {
			return nil, err
		}
	}
	return sum, rows.Err()
}
