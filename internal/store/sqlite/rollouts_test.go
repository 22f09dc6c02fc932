package sqlite

import (
	"fmt"
	"testing"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// BenchmarkRollout is what the engine reads of a rollout with 100,000 devices.
func BenchmarkRollout(b *testing.B) {
	s := openAt(b, b.TempDir())
	defer s.Close()
	r, _, err := s.Publish(ctx, fleet.Release{Product: "p", Version: "1", ChunkSize: 1024, Image: fleet.Image{Size: 1068032}}, t0)
	if err != nil {
		b.Fatal(err)
	}
	list, err := fleet.ParsePhases("100%", fleet.Phase{Success: 0.8, Fail: 0.2})
	if err != nil {
		b.Fatal(err)
	}
	c := fleet.Course{Phases: list}
	c.Fill()
	o, err := s.CreateRollout(ctx, fleet.Rollout{Product: "p", ReleaseID: r.ID, Course: c}, t0)
	if err != nil {
		b.Fatal(err)
	}
	ask := (&fleet.NativeAsk{Wire: fleet.WireSigned, Hardware: []byte("r2"), Slots: []uint32{1 << 20, 1 << 20}, Envelope: 1400, Chunk: 4096, Version: "0.9"}).Text()
	const devices = 100_000
	err = s.w.Do(ctx, func(t *tx) error {
		if _, err := t.Exec(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
 INSERT INTO devices (id, product, added_at, last_seen, heard, ask, hardware) SELECT 'device-' || i, 'p', 0, 1, 1, ?2, 'r2' FROM n`, devices, ask); err != nil {
			return err
		}
		_, err := t.Exec(`INSERT INTO deployments (device, release_id, state, chunks_received, chunks_total, verified, boot_status, reason, proven, started_at, updated_at, rollout, assurance, heard)
 SELECT id, ?1, CASE rowid % 10 WHEN 0 THEN 'failed' WHEN 1 THEN 'rebooting' ELSE 'confirmed' END, 0, 1, 0, '', '', 1, 0, 0, ?2, 'own', 1 FROM (SELECT id, row_number() OVER () AS rowid FROM devices)`, r.ID, o.ID)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			got, err := s.CountRollout(ctx, o, 1)
			n := 0
			for _, t := range got {
				n += t.N
			}
			if err != nil || n != devices {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("census", func(b *testing.B) {
		for b.Loop() {
			n := 0
			err := s.Census(ctx, o, func(*fleet.Device, int) { n++ })
			if err != nil || n != devices {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("poll", func(b *testing.B) {
		i := 0
		for b.Loop() {
			i = i%devices + 1
			d, err := s.NativePoll(ctx, fmt.Sprint("device-", i), fleet.Wanted{Releases: []int64{r.ID}})
			if err != nil || len(d.Deployments) != 1 {
				b.Fatal(d, err)
			}
		}
	})
}
