package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/datadir"
	"github.com/runnel-fota/runnel/internal/store/postgres"
	"github.com/runnel-fota/runnel/internal/store/sqlite"
	"github.com/runnel-fota/runnel/internal/store/sqlstore"
)

func newMigrateCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "migrate",
		Short:   "Move a server's fleet to another kind of database",
		Long:    "Moves a server's fleet to another kind of database, whole and checked, while no server runs on it.",
		Example: "  runnel migrate sqlite-to-postgres --data fleet --database postgres://runnel@db/runnel",
	}
	cmd.AddCommand(newToPostgresCmd())
	return cmd
}

func newToPostgresCmd() *cobra.Command {
	var data, url string
	asJSON := false
	cmd := &cobra.Command{
		Use:   "sqlite-to-postgres",
		Short: "Move the fleet of a data folder into a PostgreSQL database",
		Long: `Copies all that a data folder's database holds into a new PostgreSQL database: devices
with their keys and nonces, releases, rollouts, reports, the log. The server of the
folder must be stopped. What was written is read again and compared by counts and
digests before it counts: an error leaves the new database empty and the folder as it
was. Devices notice nothing.

Afterwards the folder's database is called runnel.db.moved, so that no server starts
on it by mistake. Images and streams stay where they are: start the servers with
--secret-file FOLDER/secret.key --blobs FOLDER/blobs, or with copies of them.

--json prints {"tables":[{"name","rows","sha256"}],"rows":N}.`,
		Example: "  runnel migrate sqlite-to-postgres --data fleet --database postgres://runnel@db/runnel\n" +
			"  RUNNEL_DATABASE=postgres://pumps:secret@db/pumps runnel migrate sqlite-to-postgres --data fleet --json",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if url == "" {
				url = os.Getenv(databaseEnv)
			}
			switch {
			case data == "":
				return usagef("--data is missing").withHint("name the data folder of the server that is to move")
			case !postgres.IsURL(url):
				return usagef("--database is no postgres:// URL").withHint("write it like postgres://runnel@db.example.com/runnel?sslmode=verify-full")
			}
			m := move{data: data, url: url}
			if !asJSON {
				bar := newProgress(cmd.ErrOrStderr(), "moving")
				defer bar.End()
				m.progress = bar.Set
			}
			if err := m.run(cmd.Context()); err != nil {
				return err
			}
			return m.show(cmd.OutOrStdout(), asJSON)
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "the data `folder` of the server that moves")
	cmd.Flags().StringVar(&url, "database", "", "the new PostgreSQL database's `URL`; or in "+databaseEnv)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// move is one installation on its way.
type move struct {
	data, url string
	progress  func(done, total int64) // nil: none
	dir       string
	moved     string // where the old database is
	sums      []*sqlstore.Sum
}

func (m *move) run(ctx context.Context) (err error) {
	d, err := datadir.OpenToCheck(m.data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	m.dir = d.Path()
	if err := d.CanPutAway(); err != nil {
		return err
	}
	secret, err := d.Secret(rand.Reader)
	if err != nil {
		return err
	}
	if err := m.copy(ctx, d, secret); err != nil {
		return err
	}
	m.moved, err = d.PutAway()
	return err
}

func (m *move) copy(ctx context.Context, d *datadir.Dir, secret [32]byte) (err error) {
	from, err := sqlite.Open(ctx, sqlite.Options{Path: d.Database(), Secret: secret})
	if err != nil {
		return err
	}
	// Closed before the file gets another name: its log is folded in.
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := postgres.Open(ctx, postgres.Options{URL: m.url, Secret: secret})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	var total int64
	for _, t := range sqlstore.Tables {
		n, err := from.Count(ctx, t)
		if err != nil {
			return err
		}
		total += n
	}
	var before, last int64
	table := ""
	m.sums, err = to.Load(ctx, from.Store, func(name string, rows int64) {
		if name != table {
			before, table = before+last, name
		}
		last = rows
		if m.progress != nil {
			m.progress(before+rows, total)
		}
	})
	return err
}

func (m *move) show(w io.Writer, asJSON bool) error {
	type tableLine struct {
		Name   string `json:"name"`
		Rows   int64  `json:"rows"`
		SHA256 string `json:"sha256"`
	}
	var out struct {
		Tables []tableLine `json:"tables"`
		Rows   int64       `json:"rows"`
	}
	for _, s := range m.sums {
		out.Tables = append(out.Tables, tableLine{s.Table, s.Rows, s.Digest()})
		out.Rows += s.Rows
	}
	if asJSON {
		return json.NewEncoder(w).Encode(out)
	}
	for _, t := range out.Tables {
		if t.Rows > 0 {
			fmt.Fprintf(w, "%-16s %9d rows, the same in both (SHA-256 %s)\n", t.Name, t.Rows, t.SHA256[:16])
		}
	}
	_, err := fmt.Fprintf(w, "\nmoved %d rows; the old database is %s\n\nNext, with the same URL:\n\n  runnel serve --database URL --secret-file %s --blobs %s\n",
		out.Rows, m.moved, filepath.Join(m.dir, "secret.key"), filepath.Join(m.dir, "blobs"))
	return err
}
