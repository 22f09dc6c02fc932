package rig

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/datadir"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/sqlite"
	"github.com/runnel-fota/runnel/sim/board"
)

const (
	// fleetForm is in the names of fleets' folders: another one makes all of them anew.
	fleetForm = 3
	product   = "acme/pump"
	version   = "1.0"
	// writers write at once while a fleet is made, and share transactions.
	writers = 256
	// imageBytes of the release: the README's image.
	imageBytes = 1 << 20
)

// Fleet is a data folder with devices and a release that they run.
type Fleet struct {
	Data    string
	Devices int
	Release fleet.Release
	Stream  fleet.Stream // with chunks of 1,024 bytes, of a signed release
	List    fleet.KeyList
}

// DeviceID and Secret are device i's, of every fleet.
func DeviceID(i int) string { return fmt.Sprintf("pump-%07d", i) }

// Secret is device i's.
func Secret(i int) fleet.Key {
	return sha256.Sum256([]byte("a bench's device, known to everybody: " + DeviceID(i)))
}

// NativeFleet is one whose devices speak the native wire: each has reported that it
// confirmed the release, and has polled, so that its next poll is an idle one. Devices are
// registered through the store; one then reports and polls for real, and the others get
// what was written of it. It is made in the first run.
func (b *Bench) NativeFleet(ctx context.Context, devices int) (*Fleet, error) {
	return b.fleet(ctx, "native", devices, func(f *Fleet) error {
		err := f.open(ctx, func(s *sqlite.Store) error {
			return b.each(ctx, "registering", devices, func(i int) error {
				return s.AddNativeDevice(ctx, fleet.Device{ID: DeviceID(i), Product: product}, Secret(i), nil, time.Now())
			})
		})
		if err != nil {
			return err
		}
		if err := b.publish(ctx, f, true); err != nil {
			return err
		}
		if err := f.open(ctx, func(s *sqlite.Store) error { return f.settle(ctx, s) }); err != nil {
			return err
		}
		b.Log("giving all devices what was written of one")
		return f.spread(ctx)
	})
}

// V1Fleet is one whose devices speak v1; the release is on offer to all.
func (b *Bench) V1Fleet(ctx context.Context, devices int) (*Fleet, error) {
	return b.fleet(ctx, "v1", devices, func(f *Fleet) error {
		err := f.open(ctx, func(s *sqlite.Store) error {
			return b.each(ctx, "registering", devices, func(i int) error {
				key := Secret(i)
				return s.AddDevice(ctx, fleet.Device{ID: DeviceID(i), Product: product}, &key, time.Now())
			})
		})
		if err != nil {
			return err
		}
		return b.publish(ctx, f, false)
	})
}

// fleet finds a fleet or has it made.
func (b *Bench) fleet(ctx context.Context, kind string, devices int, make func(*Fleet) error) (*Fleet, error) {
	folder := filepath.Join(b.Work, fmt.Sprintf("%s-%d-form%d", kind, devices, fleetForm))
	f := &Fleet{Data: filepath.Join(folder, "data"), Devices: devices}
	whole := filepath.Join(folder, "whole")
	if _, err := os.Stat(whole); errors.Is(err, os.ErrNotExist) {
		b.Log("making a fleet, once; it is kept", "devices", devices, "folder", folder)
		if err := os.RemoveAll(folder); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, err
		}
		if err := make(f); err != nil {
			return nil, err
		}
		if err := os.WriteFile(whole, nil, 0o600); err != nil {
			return nil, err
		}
	}
	return f, f.open(ctx, func(s *sqlite.Store) error { return f.read(ctx, s) })
}

// open opens the fleet's store while no server has it.
func (f *Fleet) open(ctx context.Context, use func(*sqlite.Store) error) (err error) {
	dir, err := datadir.Open(f.Data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	// Numbers in a row, where a server draws them: keys then go to the end of their tables, and a
	// million devices take minutes and not an hour. Nothing here is a secret.
	random := &counter{n: uint64(time.Now().UnixNano())}
	secret, err := dir.Secret(random)
	if err != nil {
		return err
	}
	s, err := sqlite.Open(ctx, sqlite.Options{Path: dir.Database(), Secret: secret, Random: random})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return use(s)
}

// counter is a source of numbers that rise. The store reads it in one goroutine.
type counter struct{ n uint64 }

func (c *counter) Read(p []byte) (int, error) {
	var b [8]byte
	for at := 0; at < len(p); at += len(b) {
		c.n++
		binary.BigEndian.PutUint64(b[:], c.n)
		copy(p[at:], b[:])
	}
	return len(p), nil
}

// read finds what the requests have to name.
func (f *Fleet) read(ctx context.Context, s *sqlite.Store) error {
	list, err := s.ListReleases(ctx, "")
	if err != nil {
		return err
	}
	if len(list) != 1 {
		return fmt.Errorf("%s has %d releases, not one: remove the folder", f.Data, len(list))
	}
	f.Release = list[0]
	if f.Release.Sequence == 0 {
		return nil // unsigned
	}
	streams, err := s.Streams(ctx, f.Release.ID)
	if err != nil {
		return err
	}
	f.Stream = streams[0]
	f.List, err = s.NewestKeyList(ctx)
	return err
}

// publish makes a release with the program, as its user does.
func (b *Bench) publish(ctx context.Context, f *Fleet, sign bool) error {
	folder := filepath.Dir(f.Data)
	image, err := board.BuildImage(board.ImageSpec{Size: imageBytes, Chip: esp32.ChipESP32, Project: "bench", Version: version, Behave: "ok", Seed: 1})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "image.bin"), image, 0o600); err != nil {
		return err
	}
	p, err := b.Serve(ctx, f.Data)
	if err != nil {
		return err
	}
	defer p.Stop()
	steps := [][]string{{"push", "image.bin", "--product", product, "--version", version}}
	if sign {
		steps = [][]string{
			{"keys", "init", "keys", "--no-passphrase", "--product", product},
			{"keys", "publish", "keys"},
			{"sign", "image.bin", "--product", product, "--version", version, "--sequence", "1", "--hardware", "r1", "--key", "keys/release.key", "--keylist", "keys/keylist.cose", "--yes", "-o", "image.runnel"},
			{"push", "image.runnel"},
		}
	}
	for _, args := range steps {
		if err := b.do(ctx, folder, []string{"RUNNEL_SERVER=http://" + p.Addr, "RUNNEL_TOKEN=" + p.token}, args...); err != nil {
			return err
		}
	}
	return nil
}

// each calls f for every device, many at once, and says how far it is.
func (b *Bench) each(ctx context.Context, what string, n int, f func(i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var left sync.WaitGroup
	for range min(writers, n) {
		left.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if i%100_000 == 99_999 {
					b.Log(what, "devices", i+1)
				}
				if err := f(i); err != nil {
					cancel(err)
				}
			}
		})
	}
	left.Wait()
	return context.Cause(ctx)
}
