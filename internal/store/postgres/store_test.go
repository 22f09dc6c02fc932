package postgres

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/runnel-fota/runnel/internal/store/postgres/pgtest"
	"github.com/runnel-fota/runnel/internal/store/storetest"
	"github.com/runnel-fota/runnel/internal/testenv"
)

var testSecret = [32]byte{1, 2, 3}

func openAt(t testing.TB, url string) *Store {
	t.Helper()
	s, err := Open(context.Background(), Options{URL: url, Secret: testSecret})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	server := pgtest.Start(t, false)
	urls := map[string]string{} // by folder: each has a database of its own
	storetest.Run(t, func(t testing.TB, dir string) storetest.Store {
		if urls[dir] == "" {
			urls[dir] = server.Schema(t)
		}
		return openAt(t, urls[dir])
	})
}

// A schema of a number means the same in both databases.
func TestSchemasAreInStep(t *testing.T) {
	newest := func(pattern string) string {
		files, err := filepath.Glob(filepath.Join(testenv.Root(), "internal", "store", pattern))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		return filepath.Base(files[len(files)-1])[:len("00006")]
	}
	if ours, others := newest("postgres/migrations/*.sql"), newest("sqlite/migrations/*.sql"); ours != others {
		t.Errorf("the schema is %s here and %s in sqlite: a migration is missing in one of them", ours, others)
	}
}
