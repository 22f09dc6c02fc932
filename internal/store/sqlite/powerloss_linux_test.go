package sqlite

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/sqlstore"
)

const (
	// powerStatesEnv is how many states of the disk are tried.
	powerStatesEnv     = "RUNNEL_POWER_STATES"
	defaultPowerStates = 120
	// powerSeedEnv repeats a run.
	powerSeedEnv = "RUNNEL_POWER_SEED"
)

func powerStates(t *testing.T) (n int, seed uint64) {
	t.Helper()
	n, seed = defaultPowerStates, uint64(time.Now().UnixNano())
	if testing.Short() {
		n /= 4
	}
	if s := os.Getenv(powerStatesEnv); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	if s := os.Getenv(powerSeedEnv); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d (%s repeats it)", seed, powerSeedEnv)
	return n, seed
}

// onDisk makes a store on a logged disk and lets work write to it.
func onDisk(t *testing.T, synchronous string, writes int) *disk {
	t.Helper()
	dir := t.TempDir()
	d := newDisk(t, dir)
	params := []string{"vfs=" + diskName, "_pragma=wal_autocheckpoint(24)"} // so that the log is folded often
	if synchronous != "" {
		params = append(params, "_pragma=synchronous("+synchronous+")")
	}
	s, err := Open(ctx, Options{Path: filepath.Join(dir, "runnel.db"), Secret: testSecret, params: params})
	if err != nil {
		t.Fatal(err)
	}
	// Several at once, so that batches are torn too. Each write is two rows: both or none.
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := w; n < writes; n += 4 {
				err := s.w.Do(ctx, func(t *tx) error {
					for _, part := range []string{"a", "b"} {
						if err := insert(t, fmt.Sprint(n, part, strings.Repeat(".", 50*(n%60)))); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				d.mark(n)
			}
		}()
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// And a second life: what the first one's end removed may come back.
	s, err = Open(ctx, Options{Path: filepath.Join(dir, "runnel.db"), Secret: testSecret, params: params})
	if err != nil {
		t.Fatal(err)
	}
	for n := writes; n < writes+8; n++ {
		err := s.w.Do(ctx, func(t *tx) error {
			return firstError(insert(t, fmt.Sprint(n, "a")), insert(t, fmt.Sprint(n, "b")))
		})
		if err != nil {
			t.Fatal(err)
		}
		d.mark(n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return d
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// lostAt says what is wrong after a power loss behind so many steps.
func (d *disk) lostAt(t *testing.T, step int, seed uint64) (wrong string) {
	t.Helper()
	dir, err := os.MkdirTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	acknowledged := d.powerLoss(t, dir, step, rand.New(rand.NewPCG(seed, uint64(step))))
	s, err := Open(ctx, Options{Path: filepath.Join(dir, "runnel.db"), Secret: testSecret})
	if err != nil {
		return err.Error()
	}
	defer s.Close()
	if wrong := integrity(s); wrong != "" {
		return wrong
	}
	have := map[string]int{}
	for detail := range details(t, s) {
		name := strings.TrimRight(detail, ".")
		have[name[:len(name)-1]]++
	}
	for n := range acknowledged {
		if have[strconv.Itoa(n)] != 2 {
			return fmt.Sprintf("write %d was acknowledged and is gone", n)
		}
	}
	for name, parts := range have {
		if parts != 2 {
			return fmt.Sprintf("of write %s a part is there", name)
		}
	}
	// And it goes on.
	if err := s.Append(ctx, fleet.Event{Time: t0, Name: "test", Detail: "after"}); err != nil {
		return err.Error()
	}
	return ""
}

// integrity is what SQLite finds wrong in the file.
func integrity(s *Store) string {
	list, err := sqlstore.Collect(func(r sqlstore.Scanner) (v string, err error) { return v, r.Scan(&v) })(s.readers.db.Query("PRAGMA integrity_check"))
	if err == nil && len(list) == 1 && list[0] == "ok" {
		return ""
	}
	return fmt.Sprint(list, err)
}

// W1 on the disk: whenever the power goes, and whatever of what was not flushed
// is left, the file opens and holds every write that was acknowledged, each whole.
func TestPowerLoss(t *testing.T) {
	n, seed := powerStates(t)
	d := onDisk(t, "", 120)
	kinds := map[diskKind]int{}
	for _, op := range d.log {
		kinds[op.kind]++
	}
	t.Logf("%d steps: %d writes, %d flushes, %d acknowledgements", len(d.log), kinds[diskWrite], kinds[diskSync], kinds[diskMark])
	if kinds[diskSync] < 50 || kinds[diskMark] != 128 || kinds[diskRemove] == 0 {
		t.Fatal("that is not what a store does on a disk")
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	for i := range n {
		step, s := rnd.IntN(len(d.log)+1), seed+uint64(i)
		if wrong := d.lostAt(t, step, s); wrong != "" {
			t.Fatalf("the power goes after step %d of %d (seed %d): %s", step, len(d.log), s, wrong)
		}
	}
	t.Logf("%d states of the disk", n)
}

// The disk of these tests finds what it is for: without a flush at each COMMIT,
// acknowledged writes are lost.
func TestPowerLossIsFound(t *testing.T) {
	_, seed := powerStates(t)
	d := onDisk(t, "NORMAL", 40)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for i := range 400 {
		wrong := d.lostAt(t, rnd.IntN(len(d.log)+1), seed+uint64(i))
		if strings.Contains(wrong, "is gone") {
			t.Logf("found in state %d: %s", i+1, wrong)
			return
		}
		if wrong != "" {
			t.Fatalf("NORMAL loses acknowledged writes, it does not damage: %s", wrong)
		}
	}
	t.Error("synchronous=NORMAL lost nothing in 400 states: the disk of these tests is too kind")
}
