package postgres

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/postgres/pgtest"
	"github.com/runnel-fota/runnel/internal/store/sqlstore"
)

// What can't be used is refused with what to do, and never with the password.
func TestOpenRefuses(t *testing.T) {
	server := pgtest.Start(t, false)
	ctx := t.Context()
	good := server.URL(server.Database(t))
	openAt(t, good).Close()
	latin := server.Database(t)
	server.Exec(t, "postgres", "DROP DATABASE "+latin)
	server.Exec(t, "postgres", "CREATE DATABASE "+latin+" ENCODING 'LATIN1' TEMPLATE template0")
	other := server.Database(t)
	server.Exec(t, other, "CREATE TABLE theirs (id int)")
	newer := server.Database(t)
	openAt(t, server.URL(newer)).Close()
	server.Exec(t, newer, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, true)")
	readOnly := server.Database(t)
	openAt(t, server.URL(readOnly)).Close()
	server.Exec(t, "postgres", "ALTER DATABASE "+readOnly+" SET default_transaction_read_only = on")
	for name, c := range map[string]struct {
		url, part string
		secret    [32]byte
	}{
		"no URL":              {"host=127.0.0.1 password=" + server.Password, "is no postgres:// URL", testSecret},
		"a URL in parts":      {"postgres://u:" + server.Password + "@[::1/x", "can't be read", testSecret},
		"an unknown port":     {"postgres://u:" + server.Password + "@127.0.0.1:none/x", "can't be read", testSecret},
		"nobody there":        {strings.Replace(server.URL("x"), server.Address(), "127.0.0.1:1", 1), "the database does not answer", testSecret},
		"no such database":    {server.URL("nothing"), `database "nothing" does not exist`, testSecret},
		"a wrong password":    {strings.Replace(good, server.Password, "guess", 1), "password authentication failed", testSecret},
		"Latin 1":             {server.URL(latin), "encoding is LATIN1", testSecret},
		"of another program":  {server.URL(other), "tables of another program", testSecret},
		"of a newer program":  {server.URL(newer), "newer version of this program (schema 999", testSecret},
		"with another secret": {good, "secret.key is not the one", [32]byte{9}},
	} {
		s, err := Open(ctx, Options{URL: c.url, Secret: c.secret})
		var f *fleet.Error
		if !errors.As(err, &f) || f.Code != fleet.CodeInvalid || f.Hint == "" || !strings.Contains(err.Error(), c.part) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			s.Close()
		} else if strings.Contains(err.Error()+fmt.Sprintf("%+v %#v", err, f), server.Password) {
			t.Errorf("%s: the error has the password", name)
		}
	}
	// A standby is no mistake of the URL's: it may become the primary.
	s := openAt(t, server.URL(readOnly))
	defer s.Close()
	if err := s.Append(ctx, fleet.Event{Time: time.Now(), Name: "x"}); fleet.CodeOf(err) != fleet.CodeBusy || !strings.Contains(err.Error(), "standby") {
		t.Error(err)
	}
}

// Of servers that start at once on a new database one makes its tables and its seal.
func TestOpenAtOnce(t *testing.T) {
	server := pgtest.Start(t, false)
	url := server.URL(server.Database(t))
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			s, err := Open(t.Context(), Options{URL: url, Secret: testSecret})
			if err != nil {
				t.Error(err)
				return
			}
			s.Close()
		})
	}
	wg.Wait()
	if sealed, err := Sealed(t.Context(), url); err != nil || !sealed {
		t.Errorf("%v %v", sealed, err)
	}
	if sealed, err := Sealed(t.Context(), server.URL(server.Database(t))); err != nil || sealed {
		t.Errorf("%v %v", sealed, err)
	}
}

// A database that goes and comes back costs the calls in between, with an error that has
// devices come again; and nothing that was acknowledged.
func TestDatabaseGoesAndComes(t *testing.T) {
	ctx := t.Context()
	server := pgtest.Start(t, false)
	s := openAt(t, server.URL("postgres"))
	defer s.Close()
	for i := range 8 {
		if err := s.AddDevice(ctx, fleet.Device{ID: fmt.Sprint("before-", i)}, nil, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	server.Kill(t)
	for what, f := range map[string]func() error{
		"read":  func() error { _, err := s.Device(ctx, "before-1"); return err },
		"row":   func() error { _, err := s.Generation(ctx); return err },
		"write": func() error { return s.AddDevice(ctx, fleet.Device{ID: "lost"}, nil, time.Now()) },
	} {
		for range 3 {
			if err := f(); fleet.CodeOf(err) != fleet.CodeBusy {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	server.Restart(t)
	list, err := s.ListDevices(ctx)
	if err != nil || len(list) != 8 {
		t.Errorf("%d devices, %v", len(list), err)
	}
	if err := s.AddDevice(ctx, fleet.Device{ID: "after"}, nil, time.Now()); err != nil {
		t.Error(err)
	}
}

// Transactions that lock each other out are run again, and the caller sees nothing of it.
func TestDeadlock(t *testing.T) {
	ctx := t.Context()
	server := pgtest.Start(t, false)
	s := openAt(t, server.URL("postgres")+"&options=-cdeadlock_timeout%3D20ms")
	defer s.Close()
	for _, id := range []string{"a", "b"} {
		if err := s.AddDevice(ctx, fleet.Device{ID: id}, nil, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	var both sync.WaitGroup
	both.Add(2)
	var wg sync.WaitGroup
	var mu sync.Mutex
	runs := 0
	for _, order := range [][2]string{{"a", "b"}, {"b", "a"}} {
		wg.Go(func() {
			first := true
			err := database{s}.Write(ctx, "write", func(r sqlstore.Runner) error {
				mu.Lock()
				runs++
				mu.Unlock()
				for i, id := range order {
					if _, err := r.Exec("UPDATE devices SET failures = failures + 1 WHERE id = ?", id); err != nil {
						return err
					}
					if i == 0 && first {
						first = false
						both.Done()
						both.Wait()
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if runs < 3 { // who is ended may meet the other again
		t.Errorf("%d runs", runs)
	}
	for _, id := range []string{"a", "b"} {
		if d, err := s.Device(ctx, id); err != nil || d.Failures != 2 {
			t.Errorf("%+v %v", d, err)
		}
	}
}

// One step at a time; what a step that fails wrote is not there.
func TestAlone(t *testing.T) {
	ctx := t.Context()
	server := pgtest.Start(t, false)
	one, two := openAt(t, server.URL("postgres")), openAt(t, server.URL("postgres"))
	defer one.Close()
	defer two.Close()
	ran, err := one.Alone(ctx, func(in fleet.StepStore) error {
		if ran, err := two.Alone(ctx, func(fleet.StepStore) error { t.Error("two steps at once"); return nil }); ran || err != nil {
			t.Errorf("%v %v", ran, err)
		}
		c, _, err := in.ReadClock(ctx)
		if err == nil {
			_, err = in.SaveClock(ctx, c, c+5, time.Now())
		}
		return err
	})
	if !ran || err != nil {
		t.Errorf("%v %v", ran, err)
	}
	no := errors.New("no")
	ran, err = two.Alone(ctx, func(in fleet.StepStore) error {
		if saved, err := in.SaveClock(ctx, 6, 60, time.Now()); err != nil || !saved {
			t.Errorf("%v %v", saved, err)
		}
		return no
	})
	if ran || !errors.Is(err, no) {
		t.Errorf("%v %v", ran, err)
	}
	if c, _, err := one.ReadClock(ctx); err != nil || c != 6 {
		t.Errorf("the clock is %d, %v", c, err)
	}
}

func TestExposed(t *testing.T) {
	for url, want := range map[string]bool{
		"postgres://u@127.0.0.1/d":                                false,
		"postgres://u@localhost/d?sslmode=disable":                false,
		"postgres://u@/d?host=/run/postgresql":                    false,
		"postgres://u@db.example.com/d":                           true, // falls back to plain text
		"postgres://u@db.example.com/d?sslmode=require":           true, // to whoever answers
		"postgres://u@db.example.com/d?sslmode=verify-full":       false,
		"postgres://u@127.0.0.1,db.example.com/d?sslmode=disable": true,
		"postgres://u@db.example.com,db2/d?sslmode=verify-full":   false,
		"postgres://u@192.0.2.1/d?sslmode=verify-full":            false,
	} {
		c, err := config(url)
		if err != nil || exposed(c) != want {
			t.Errorf("%s: not %v, %v", url, want, err)
		}
	}
}

func TestNumbered(t *testing.T) {
	for text, want := range map[string]string{
		"SELECT 1":                           "SELECT 1",
		"a = ? AND b = ? LIMIT ?":            "a = $1::bigint AND b = $2::text LIMIT $3::bytea",
		"?1 = ?1 AND ?3 = x":                 "$1::bigint = $1::bigint AND $3::bytea = x",
		"VALUES (?, ?, ?, ?4, 1, ?4) -- new": "VALUES ($1::bigint, $2::text, $3::bytea, $4::double precision, 1, $4::double precision) -- new",
	} {
		for range 2 {
			if got := numbered(text, []any{int64(1), "a", []byte{}, 1.5}); got != want {
				t.Errorf("%q, not %q", got, want)
			}
		}
	}
}

func TestPoolOfURL(t *testing.T) {
	c, err := config("postgres://u@h/d?lock_timeout=3s&pool_max_conns=7&application_name=mine")
	if err != nil || c.MaxConns != 7 || c.ConnConfig.RuntimeParams["lock_timeout"] != "3s" || c.ConnConfig.RuntimeParams["application_name"] != "mine" {
		t.Errorf("%+v %v", c, err)
	}
	if c, err = config("postgres://u@h/d"); err != nil || c.MaxConns != defaultConns || c.ConnConfig.ConnectTimeout != connectTimeout {
		t.Errorf("%+v %v", c, err)
	}
}
