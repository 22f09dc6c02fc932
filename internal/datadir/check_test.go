package datadir

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// made is a folder as a first start leaves it.
func made(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "data")
	d := open(t, path)
	if _, err := d.Secret(rand.Reader); err != nil {
		t.Fatal(err)
	}
	token, err := fleet.NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{d.TokenFile(): token + "\n", d.Database(): "something"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheck(t *testing.T) {
	write := func(name, text string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600) }
	}
	chmod := func(name string, mode os.FileMode) func(string) error {
		return func(dir string) error { return os.Chmod(filepath.Join(dir, name), mode) }
	}
	for name, c := range map[string]struct {
		spoil func(dir string) error
		part  string // "": nothing is found
	}{
		"whole":           {func(string) error { return nil }, ""},
		"token put away":  {func(dir string) error { return os.Remove(filepath.Join(dir, tokenName)) }, ""},
		"shared folder":   {chmod(".", 0o755), ""},
		"no secret":       {func(dir string) error { return os.Remove(filepath.Join(dir, secretName)) }, "there is no secret.key"},
		"short secret":    {write(secretName, strings.Repeat("a", 63)), "64 hex digits"},
		"no hex":          {write(secretName, strings.Repeat("g", 64)), "64 hex digits"},
		"no token":        {write(tokenName, "secret"), "holds no token"},
		"secret read":     {chmod(secretName, 0o640), "others may read it"},
		"token read":      {chmod(tokenName, 0o604), "others may read it"},
		"database read":   {chmod(databaseName, 0o644), "others may use it"},
		"folder writable": {chmod(".", 0o770), "others may use it"},
	} {
		path := made(t)
		if err := c.spoil(path); err != nil {
			t.Fatal(err)
		}
		d, err := OpenToCheck(path)
		if err != nil {
			t.Fatal(err)
		}
		found, unfinished, err := d.Check()
		switch {
		case err != nil || len(unfinished) != 0:
			t.Errorf("%s: %v %v", name, unfinished, err)
		case c.part == "" && len(found) != 0:
			t.Errorf("%s: %v", name, found)
		case c.part != "" && (len(found) != 1 || !strings.Contains(found[0].Message, c.part) || found[0].Hint == ""):
			t.Errorf("%s: %v", name, found)
		}
		d.Close()
	}
}

// What a crash left half-written is named by a check, and removed by a start.
func TestUnfinished(t *testing.T) {
	path := made(t)
	left := filepath.Join(path, "."+secretName+"-123")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := OpenToCheck(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, unfinished, err := d.Check(); err != nil || len(unfinished) != 1 || unfinished[0] != filepath.Base(left) {
		t.Errorf("%v %v", unfinished, err)
	}
	if _, err := os.Stat(left); err != nil {
		t.Error("a look removed it")
	}
	d.Close()
	open(t, path)
	if _, err := os.Stat(left); err == nil {
		t.Error("a start left it")
	}
	if _, err := OpenToCheck(path); fleet.CodeOf(err) != fleet.CodeConflict || !strings.Contains(err.Error(), "a server uses") {
		t.Errorf("%v", err)
	}
}

// A look makes nothing.
func TestCheckMakesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	if _, err := OpenToCheck(path); fleet.CodeOf(err) != fleet.CodeNotFound {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("it made the folder")
	}
}
