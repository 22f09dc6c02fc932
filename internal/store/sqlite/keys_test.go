package sqlite

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/internal/fleet"
)

var secretKey = fleet.Key([]byte("0123456789ABCDEF the device's key"[:32]))

// A copy of the data folder's files, without secret.key, tells no key.
func TestKeysAreSealed(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir)
	product := fleet.Key([]byte("ABCDEF 0123456789 product's key.."[:32]))
	stream := fleet.Key([]byte("89ABCDEF the server's stream key.."[:32]))
	token, err := fleet.NewToken(strings.NewReader(strings.Repeat("r", 32)))
	if err != nil {
		t.Fatal(err)
	}
	_, tokenErr := s.AddToken(ctx, "admin", token, t0)
	_, streamErr := s.AddStreamKey(ctx, stream, false, t0)
	err = errors.Join(tokenErr, streamErr, s.AddDevice(ctx, fleet.Device{ID: "a"}, &secretKey, t0),
		s.SetProductKey(ctx, "p", product, t0), s.SetProductKey(ctx, "p", secretKey, t0))
	if err != nil {
		t.Fatal(err)
	}
	look := func() (bytesRead int) {
		files, _ := filepath.Glob(filepath.Join(dir, "*"))
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			bytesRead += len(b)
			for name, secret := range map[string][]byte{"device key": secretKey[:], "product key": product[:], "stream key": stream[:], "secret": testSecret[:], "token": []byte(token)} {
				if bytes.Contains(b, secret) || bytes.Contains(b, []byte(hex.EncodeToString(secret))) {
					t.Errorf("%s is in %s", name, filepath.Base(f))
				}
			}
		}
		return bytesRead
	}
	if n := look(); n < 4096 {
		t.Errorf("looked at %d bytes", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	look()
	// A retired key is forgotten, not only marked.
	s = openAt(t, dir)
	defer s.Close()
	var retired, bytesLeft int
	if err := s.readers.row(ctx, "SELECT count(*), sum(length(sealed)) FROM keys WHERE state = 'retired'").Scan(&retired, &bytesLeft); err != nil || retired != 1 || bytesLeft != 0 {
		t.Errorf("%d retired, %d bytes left: %v", retired, bytesLeft, err)
	}
}

// A row that was moved to another owner or altered does not open.
func TestKeysAreBoundToTheirOwner(t *testing.T) {
	for name, change := range map[string]string{
		"moved to another device": "UPDATE keys SET owner = 'b' WHERE owner = 'a'",
		"made a product's":        "UPDATE keys SET owner_kind = 'product', owner = 'p' WHERE owner = 'a'",
		"renamed":                 "UPDATE keys SET id = 'ffffffffffffffff' WHERE owner = 'a'",
		"altered":                 "UPDATE keys SET sealed = zeroblob(60) WHERE owner = 'a'",
		"cut":                     "UPDATE keys SET sealed = substr(sealed, 1, 40) WHERE owner = 'a'",
		"emptied":                 "UPDATE keys SET sealed = x'' WHERE owner = 'a'",
	} {
		dir := t.TempDir()
		s := openAt(t, dir)
		err := errors.Join(s.AddDevice(ctx, fleet.Device{ID: "a", Product: "p"}, &secretKey, t0), s.AddDevice(ctx, fleet.Device{ID: "b"}, nil, t0), s.Close())
		if err != nil {
			t.Fatal(err)
		}
		alter(t, dir, change)
		s = openAt(t, dir)
		id := "a"
		if strings.HasPrefix(name, "moved") {
			id = "b"
		}
		key, _, err := s.DeviceKey(ctx, id)
		if fleet.CodeOf(err) != fleet.CodeInternal || key != (fleet.Key{}) || !strings.Contains(err.Error(), "can't be opened") {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
	}
}

// A stream key that was altered does not open, is found by a check, and gives way to a new one.
func TestStreamKeyAltered(t *testing.T) {
	for _, change := range []string{"UPDATE stream_key SET sealed = zeroblob(60)", "UPDATE stream_key SET sealed = x''",
		"UPDATE stream_key SET sealed = (SELECT sealed FROM keys WHERE owner = 'a')"} {
		dir := t.TempDir()
		s := openAt(t, dir)
		_, err := s.AddStreamKey(ctx, fleet.Key{1}, false, t0)
		if err = errors.Join(err, s.AddDevice(ctx, fleet.Device{ID: "a"}, &secretKey, t0), s.Close()); err != nil {
			t.Fatal(err)
		}
		alter(t, dir, change)
		s = openAt(t, dir)
		if key, err := s.StreamKey(ctx); fleet.CodeOf(err) != fleet.CodeInternal || key != (fleet.Key{}) {
			t.Errorf("%s: %v", change, err)
		}
		if found, err := s.CheckSeals(ctx); err != nil || len(found) != 1 || !strings.Contains(found[0].Hint, "--renew") {
			t.Errorf("%s: %v %v", change, found, err)
		}
		if key, err := s.AddStreamKey(ctx, fleet.Key{2}, true, t0); err != nil || key != (fleet.Key{2}) {
			t.Errorf("%s: %v", change, err)
		}
		if found, err := s.CheckSeals(ctx); err != nil || len(found) != 0 {
			t.Errorf("%s: %v %v", change, found, err)
		}
		s.Close()
	}
}

// Without randomness no key is stored, and nothing of the device.
func TestKeyWithoutRandomness(t *testing.T) {
	dir := t.TempDir()
	openAt(t, dir).Close()
	s, err := Open(ctx, Options{Path: filepath.Join(dir, "runnel.db"), Secret: testSecret, Random: bytes.NewReader(make([]byte, 10))})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.AddDevice(ctx, fleet.Device{ID: "a"}, &secretKey, t0); err == nil {
		t.Error("stored")
	}
	if _, err := s.Device(ctx, "a"); fleet.CodeOf(err) != fleet.CodeNotFound {
		t.Errorf("%v", err)
	}
}

// What a start warns of is what the list of all devices says.
func TestSharedKeyDevices(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(want int) {
		t.Helper()
		list, err := s.ListDevices(ctx)
		ok(err)
		shared := 0
		for _, d := range list {
			if d.Assurance == fleet.AssuranceShared {
				shared++
			}
		}
		if n, err := s.SharedKeyDevices(ctx); err != nil || n != want || shared != want {
			t.Errorf("%d, and %d by the list, not %d: %v", n, shared, want, err)
		}
	}
	ok(s.AddDevice(ctx, fleet.Device{ID: "own", Product: "p"}, &fleet.Key{1}, t0))
	ok(s.AddDevice(ctx, fleet.Device{ID: "p", Product: "p"}, nil, t0))
	ok(s.AddDevice(ctx, fleet.Device{ID: "q", Product: "q"}, nil, t0))
	ok(s.AddDevice(ctx, fleet.Device{ID: "free"}, nil, t0))
	ok(s.AddNativeDevice(ctx, fleet.Device{ID: "native", Product: "p"}, fleet.Key{2}, nil, t0))
	check(0)
	ok(s.SetProductKey(ctx, "p", fleet.Key{3}, t0))
	check(2) // p, and native until it speaks natively
	if _, err := s.TakePoll(ctx, fleet.NativeChange{Device: "native", Nonce: 1, Now: t0, Wire: fleet.WireSigned}); err != nil {
		t.Fatal(err)
	}
	check(1)
	_, _, err := s.Publish(ctx, fleet.Release{Product: "p", Version: "1", ChunkSize: 1024, Image: fleet.Image{Size: 1}}, t0)
	ok(err)
	check(2) // the only product is also that of devices without one
	ok(s.SetProductKey(ctx, "q", fleet.Key{4}, t0))
	check(3)
}
