// Package replicas measures how many polls and reports a second servers answer that
// share a PostgreSQL database, beside one server on SQLite in the same run. It is for
// bench/replicas.sh; it has no part in the program.
package replicas

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/digest"
	core "github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/postgres"
	"github.com/runnel-fota/runnel/internal/store/postgres/pgtest"
	"github.com/runnel-fota/runnel/internal/store/sqlite"
	"github.com/runnel-fota/runnel/internal/store/sqlstore"
	"github.com/runnel-fota/runnel/internal/wire/native"
)

const (
	product        = "acme/pump"
	defaultDevices = 100_000
	rounds         = 5  // each of other devices
	atOnce         = 32 // devices that wait for an answer
	reportsOf      = 10 // one of so many devices reports in a round
)

var secret = [32]byte{1}

// servers are some that share a store, or one.
type servers struct {
	name  string
	muxes []*http.ServeMux
	each  []*native.Server
	ran   func() int64 // statements
	wal   func() int64 // bytes of it so far; nil: not PostgreSQL
	look  func() error // at all devices, as a running rollout has it

	polls, reports []float64 // a second, by round
	pollWAL        float64
	reportWAL      float64
	pollStatements float64
	reportCost     float64 // statements a report
}

func (s *servers) add(store *sqlstore.Store, replicas fleet.Replicas) {
	n := native.New(native.Config{Devices: store, Catalogue: store, KeyLists: store, Enroller: store, Replicas: replicas, MaxDevices: 1 << 20,
		Log: slog.New(slog.DiscardHandler), Now: time.Now})
	mux := http.NewServeMux()
	n.Register(mux)
	s.muxes, s.each = append(s.muxes, mux), append(s.each, n)
}

// devices are what they say: key i is of device i.
type devices struct {
	keys  []core.Keys
	nonce []uint64
	size  func(tables ...string) float64 // bytes a device, with indices
}

func name(i int) string { return fmt.Sprintf("pump-%06d", i) }

func (d *devices) poll(i int) []byte {
	d.nonce[i]++
	p := core.Poll{Device: []byte(name(i)), Random: []byte("8 random"), Hardware: []byte("r2"), Version: []byte("1.0"), Boot: 1, Envelope: 1400, Chunk: 4096,
		Profile: core.ProfileSigned, SlotCount: 2, Nonce: d.nonce[i]}
	p.Slots[0], p.Slots[1] = 1<<20, 1<<20
	body, e := p.Encode(make([]byte, core.MaxBody), &core.SoftMAC{Keys: &d.keys[i], Run: new(digest.SHA256)})
	if e != 0 {
		panic(e) // our own message
	}
	return body
}

func (d *devices) report(i, round int) []byte {
	d.nonce[i]++
	image := sha256.Sum256([]byte("image"))
	m := core.Report{Device: []byte(name(i)), Nonce: d.nonce[i], Boot: 1, Number: uint32(round) + 1, Epoch: 1, Sequence: 1, Digest: image[:], State: core.StateDownloading, Bytes: 4096}
	body, e := m.Encode(make([]byte, core.MaxBody), &core.SoftMAC{Keys: &d.keys[i], Run: new(digest.SHA256)})
	if e != 0 {
		panic(e) // our own message
	}
	return body
}

// rate sends one message of each of n devices from first on, step apart, each to the next server, and
// answers how many a second were answered.
func (s *servers) rate(b *testing.B, path string, first, n, step int, body func(i int) []byte) float64 {
	b.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	begun := time.Now()
	for range atOnce {
		wg.Go(func() {
			for k := int(next.Add(1)) - 1; k < n; k = int(next.Add(1)) - 1 {
				r := httptest.NewRequest("POST", path, bytes.NewReader(body(first+k*step)))
				w := httptest.NewRecorder()
				s.muxes[k%len(s.muxes)].ServeHTTP(w, r)
				if w.Code != http.StatusOK {
					b.Errorf("%s: %s: status %d", s.name, path, w.Code)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, each := range s.each {
		if err := each.Flush(context.Background()); err != nil { // what is written behind belongs to it
			b.Error(err)
		}
	}
	return float64(n) / time.Since(begun).Seconds()
}

// log is how much was written ahead so far, in bytes.
func (s *servers) log() int64 {
	if s.wal == nil {
		return 0
	}
	return s.wal()
}

// look reads all devices.
func look(store *sqlstore.Store, count int) func() error {
	return func() error {
		n := 0
		err := store.Census(context.Background(), fleet.Rollout{ID: 1, Product: product}, func(*fleet.Device, int) { n++ })
		if err == nil && n != count {
			err = fmt.Errorf("%d devices, not %d", n, count)
		}
		return err
	}
}

func BenchmarkReplicas(b *testing.B) {
	count := defaultDevices
	if text := os.Getenv("RUNNEL_BENCH_DEVICES"); text != "" {
		var err error
		if count, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	fleets, d := fill(b, count)
	in := count / rounds
	for round := range rounds {
		for k := range fleets {
			s := fleets[(round+k)%len(fleets)]                  // each comes first once
			s.rate(b, native.PathPoll, round*in, in, 1, d.poll) // the first reads its keys and writes what it says
			before, written := s.ran(), s.log()
			s.polls = append(s.polls, s.rate(b, native.PathPoll, round*in, in, 1, d.poll))
			s.pollStatements, s.pollWAL = float64(s.ran()-before)/float64(in), float64(s.log()-written)/float64(in)
			before, written = s.ran(), s.log()
			s.reports = append(s.reports, s.rate(b, native.PathReport, round*in, in/reportsOf, reportsOf, func(i int) []byte { return d.report(i, round) }))
			s.reportCost, s.reportWAL = float64(s.ran()-before)/float64(in/reportsOf), float64(s.log()-written)/float64(in/reportsOf)
		}
		if b.Failed() {
			return
		}
	}
	fmt.Printf("%.0f bytes a device in PostgreSQL after %d polls and a report of each tenth: devices %.0f, keys %.0f, events %.0f, reports and deployments %.0f\n", d.size("devices", "keys", "events", "native_reports", "deployments", "decisions"),
		2*len(d.keys), d.size("devices"), d.size("keys"), d.size("events", "decisions"), d.size("native_reports", "deployments"))
	base := fleets[0]
	for _, s := range fleets {
		begun := time.Now()
		if err := s.look(); err != nil {
			b.Fatal(err)
		}
		fmt.Printf("%-20s %.0f and %.0f bytes of WAL a poll and a report; a look at all devices %.2f s\n", s.name, s.pollWAL, s.reportWAL, time.Since(begun).Seconds())
		fmt.Printf("%-26s %7.0f polls/s (%.2f of SQLite's), %.2f statements a poll; %6.0f reports/s (%.2f), %.1f statements a report\n", s.name,
			median(s.polls), median(s.polls)/median(base.polls), s.pollStatements, median(s.reports), median(s.reports)/median(base.reports), s.reportCost)
	}
}

// fill makes the same fleet in SQLite and, moved, in PostgreSQL.
func fill(b *testing.B, count int) ([]*servers, *devices) {
	b.Helper()
	ctx := context.Background()
	lite, err := sqlite.Open(ctx, sqlite.Options{Path: filepath.Join(b.TempDir(), "runnel.db"), Secret: secret})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { lite.Close() })
	d := &devices{keys: make([]core.Keys, count), nonce: make([]uint64, count)}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 256 { // that share a COMMIT
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				key := fleet.Key(sha256.Sum256([]byte(name(i))))
				run := new(digest.SHA256)
				d.keys[i].Derive((*[32]byte)(&key), run)
				if err := lite.AddNativeDevice(ctx, fleet.Device{ID: name(i), Product: product}, key, nil, time.Now()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	// A release that nobody is offered: its manifest is none. Reports name it.
	image := sha256.Sum256([]byte("image"))
	_, _, err = lite.PublishSigned(ctx, fleet.Release{Product: product, Version: "1.1", ChunkSize: 1024, Epoch: 1, Sequence: 1, Hardware: "r2", Image: fleet.Image{Digest: image, Size: 1 << 20}},
		[]byte("no manifest"), []fleet.Stream{{Digest: fleet.Digest{1}, Kind: fleet.StreamRaw, Chunk: 1024, Length: 1 << 20}}, 0, time.Now())
	if err != nil || b.Failed() {
		b.Fatal(err)
	}
	server := pgtest.Start(b, true)
	open := func(database string) *postgres.Store {
		s, err := postgres.Open(ctx, postgres.Options{URL: server.URL(database), Secret: secret})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { s.Close() })
		return s
	}
	out := []*servers{{name: "one, SQLite", ran: lite.Statements, look: look(lite.Store, count)}}
	out[0].add(lite.Store, nil)
	for n := 1; n <= 2; n++ {
		database := server.Database(b)
		s := &servers{name: fmt.Sprintf("%d on PostgreSQL", n)}
		d.size = func(tables ...string) (bytes float64) {
			for _, t := range tables {
				bytes += float64(server.Count(b, database, "SELECT pg_total_relation_size(CAST($1 AS text)::regclass)", t)) / float64(count)
			}
			return bytes
		}
		var stores []*postgres.Store
		for i := range n {
			store := open(database)
			if i == 0 {
				if _, err := store.Load(ctx, lite.Store, func(string, int64) {}); err != nil {
					b.Fatal(err)
				}
			}
			stores = append(stores, store)
			s.add(store.Store, store.Store)
		}
		s.look = look(stores[0].Store, count)
		s.wal = func() int64 {
			return server.Count(b, database, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")
		}
		s.ran = func() (n int64) {
			for _, store := range stores {
				n += store.Statements()
			}
			return n
		}
		out = append(out, s)
	}
	return out, d
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}
