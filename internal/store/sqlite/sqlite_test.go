package sqlite

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/runnel-fota/runnel/internal/store/storetest"
)

var testSecret = [32]byte{1, 2, 3}

func openAt(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(context.Background(), Options{Path: filepath.Join(dir, "runnel.db"), Secret: testSecret})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t testing.TB, dir string) storetest.Store { return openAt(t, dir) })
}
