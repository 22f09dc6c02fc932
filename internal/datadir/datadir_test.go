package datadir

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d := open(t, path)
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	if !d.FirstStart() || d.Path() != path || !strings.HasPrefix(d.Database(), path) || !strings.HasPrefix(d.Blobs(), path) {
		t.Errorf("%+v", d)
	}
	_, err := Open(path)
	var e *fleet.Error
	if !errors.As(err, &e) || e.Code != fleet.CodeConflict || e.Hint == "" || !strings.Contains(e.Message, path) {
		t.Fatalf("a second server: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.Database(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d = open(t, path)
	if !d.FirstStart() {
		t.Error("a database of no bytes is none")
	}
	d.Close()
	if err := os.WriteFile(d.Database(), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if open(t, path).FirstStart() {
		t.Error("there is a database")
	}
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", file, filepath.Join(file, "below")} {
		if d, err := Open(path); fleet.CodeOf(err) != fleet.CodeInvalid {
			t.Errorf("%q: %v %v", path, d, err)
		}
	}
}

func TestSecret(t *testing.T) {
	d := open(t, t.TempDir())
	a, err := d.Secret(rand.Reader)
	if err != nil || a == [32]byte{} {
		t.Fatal(err)
	}
	b, err := d.Secret(rand.Reader)
	if err != nil || a != b {
		t.Errorf("not the same again: %v", err)
	}
	path := filepath.Join(d.Path(), secretName)
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 || st.Size() != 65 {
		t.Errorf("%v %v", st, err)
	}
	for name, c := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"others may read it": {strings.Repeat("ab", 32) + "\n", 0o640},
		"too short":          {"abcd\n", 0o600},
		"too long":           {strings.Repeat("ab", 33), 0o600},
		"not hex":            {strings.Repeat("xy", 32), 0o600},
		"empty":              {"", 0o600},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		s, err := d.Secret(rand.Reader)
		if fleet.CodeOf(err) != fleet.CodeInvalid || s != [32]byte{} {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && c.text != "" && strings.Contains(err.Error(), strings.TrimSpace(c.text)) {
			t.Errorf("%s: the message tells the secret: %v", name, err)
		}
	}
}

func TestSecretIsNotMadeForADatabase(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, databaseName), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, dir).Secret(rand.Reader); fleet.CodeOf(err) != fleet.CodeInvalid {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, secretName)); err == nil {
		t.Error("a secret was made")
	}
}

func TestSecretWithoutRandomness(t *testing.T) {
	d := open(t, t.TempDir())
	if _, err := d.Secret(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("made of 31 bytes")
	}
	if left, _ := filepath.Glob(filepath.Join(d.Path(), "*secret*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// tokens is a mock: a list in memory.
type tokens struct {
	fleet.Tokens
	list  []fleet.Token
	texts []string
	err   error
}

func (s *tokens) ListTokens(context.Context) ([]fleet.Token, error) { return s.list, nil }

func (s *tokens) AddToken(_ context.Context, name, token string, now time.Time) (fleet.Token, error) {
	if s.err != nil {
		return fleet.Token{}, s.err
	}
	s.list = append(s.list, fleet.Token{Name: name, CreatedAt: now})
	s.texts = append(s.texts, token)
	return s.list[len(s.list)-1], nil
}

func TestEnsureToken(t *testing.T) {
	d := open(t, t.TempDir())
	store := &tokens{err: errors.New("the power is gone")}
	ctx, now := context.Background(), time.Now()
	if _, err := d.EnsureToken(ctx, store, rand.Reader, now); err == nil {
		t.Fatal("no error")
	}
	store.err = nil
	token, err := d.EnsureToken(ctx, store, rand.Reader, now)
	if err != nil || len(store.texts) != 1 || store.texts[0] != token {
		t.Fatalf("%q %v", token, err)
	}
	text, err := os.ReadFile(d.TokenFile())
	if err != nil || string(text) != token+"\n" {
		t.Errorf("the file holds %q", text)
	}
	if st, _ := os.Stat(d.TokenFile()); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	if again, err := d.EnsureToken(ctx, store, rand.Reader, now); again != "" || err != nil || len(store.texts) != 1 {
		t.Errorf("a second one: %q %v", again, err)
	}
	store.list[0].RevokedAt = now
	if again, err := d.EnsureToken(ctx, store, rand.Reader, now); again == "" || again == token || err != nil {
		t.Errorf("after the revocation: %q %v", again, err)
	}
	left, _ := filepath.Glob(filepath.Join(d.Path(), ".*"))
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A power loss must not take the folder: each one that is made is flushed into the
// one above, from the top, and what is there already is left alone.
func TestMakeDirIsDurable(t *testing.T) {
	top := t.TempDir()
	var synced []string
	sync := func(path string) error {
		synced = append(synced, path)
		return nil
	}
	path := filepath.Join(top, "a", "b")
	if err := makeDir(path, sync); err != nil {
		t.Fatal(err)
	}
	if want := []string{top, filepath.Join(top, "a")}; !slices.Equal(synced, want) {
		t.Errorf("flushed %v, want %v", synced, want)
	}
	synced = nil
	if err := makeDir(path, sync); err != nil || synced != nil {
		t.Errorf("again: %v, %v", synced, err)
	}
	broken := errors.New("disk")
	if err := makeDir(filepath.Join(top, "c"), func(string) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("a flush that fails: %v", err)
	}
	if err := os.WriteFile(filepath.Join(top, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"file", "file/below"} {
		if err := makeDir(filepath.Join(top, bad), sync); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}
