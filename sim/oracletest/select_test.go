package oracletest

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/internal/testenv"
)

const otadataOff = 0xD000

// records is flash that holds two boot records and nothing else. Where the rest of
// it would be read the test is wrong.
type records struct {
	e   [2]esp32.Entry
	ops []string // as the golden vectors name them
}

var _ Flash = (*records)(nil)

func (f *records) sector(off, n uint32) (int, error) {
	i := (off - otadataOff) / esp32.SectorSize
	if off < otadataOff || i > 1 || off%esp32.SectorSize+n > esp32.EntrySize {
		return 0, flash.ErrRange
	}
	return int(i), nil
}

func (f *records) ReadAt(p []byte, off uint32) error {
	i, err := f.sector(off, uint32(len(p)))
	if err == nil {
		copy(p, f.e[i][off%esp32.SectorSize:])
	}
	return err
}

func (f *records) Erase(off, n uint32) error {
	i, err := f.sector(off, 0)
	if err != nil || off%esp32.SectorSize != 0 || n != esp32.SectorSize {
		return flash.ErrAlign
	}
	f.e[i] = esp32.BlankEntry()
	f.ops = append(f.ops, fmt.Sprintf("erase%d", i))
	return nil
}

func (f *records) Program(p []byte, off uint32) error {
	i, err := f.sector(off, uint32(len(p)))
	if err != nil || len(p) != esp32.EntrySize {
		return flash.ErrAlign
	}
	if f.e[i] != esp32.BlankEntry() {
		return flash.ErrNotBlank
	}
	copy(f.e[i][:], p)
	f.ops = append(f.ops, fmt.Sprintf("write%d", i))
	return nil
}

// question is one case for both.
type question struct {
	e        [2]esp32.Entry
	appCount uint32
	factory  bool
}

func (q question) String() string {
	return fmt.Sprintf("%x %x, %d apps, factory %v", q.e[0], q.e[1], q.appCount, q.factory)
}

// answer is all that can be seen of a selection.
type answer struct {
	index   int32
	after   [2]esp32.Entry
	initial bool
	ops     []string
}

func (a answer) equal(b answer) bool {
	return a.index == b.index && a.after == b.after && a.initial == b.initial && slices.Equal(a.ops, b.ops)
}

func (a answer) String() string {
	return fmt.Sprintf("index %d, initial %v, %v, %x %x", a.index, a.initial, a.ops, a.after[0], a.after[1])
}

// real asks the bootloader.
func real(b *Bootloader, q question) (answer, error) {
	f := &records{e: q.e}
	s := State{OTAData: Place{otadataOff, esp32.OTADataSize}, AppCount: q.appCount}
	if q.factory {
		s.Factory = Place{0x10000, 0x10000}
	}
	index, initial, err := b.Select(f, &s)
	return answer{index, f.e, initial, f.ops}, err
}

type selector func(e0, e1 esp32.Entry, appCount uint32, factory, rollback bool) esp32.Selection

// ours asks the project's function.
func ours(sel selector, q question) answer {
	s := sel(q.e[0], q.e[1], q.appCount, q.factory, true)
	a := answer{index: s.BootIndex, after: s.After, initial: s.InitialContents}
	for _, i := range s.Written[:s.Writes] {
		a.ops = append(a.ops, fmt.Sprintf("erase%d", i), fmt.Sprintf("write%d", i))
	}
	return a
}

// agree asks both, and says whether they agree; the first disagreements are told.
func agree(t *testing.T, b *Bootloader, q question) bool {
	t.Helper()
	want, err := real(b, q)
	if err != nil {
		t.Fatalf("%v: %v", q, err)
	}
	got := ours(esp32.Select, q)
	if !got.equal(want) {
		t.Errorf("%v:\nours %v\nreal %v", q, got, want)
		return false
	}
	return true
}

// TestGoldenVectors: the machine here does what the one did that the vectors were
// made with. They bind esp32.Select where the bootloader is not at hand.
func TestGoldenVectors(t *testing.T) {
	b := Open(t)
	raw, err := os.ReadFile(filepath.Join(testenv.Root(), "core/esp32/testdata/otadata-select-vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		E0, E1, After0, After1 string
		AppCount               uint32 `json:"app_count"`
		Factory                bool
		BootIndex              int32 `json:"boot_index"`
		InitialContents        int   `json:"initial_contents"`
		Ops                    []string
	}
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 1000 {
		t.Fatalf("%d vectors", len(cases))
	}
	entry := func(s string) (e esp32.Entry) {
		if n, err := hex.Decode(e[:], []byte(s)); err != nil || n != esp32.EntrySize {
			t.Fatalf("bad record %q", s)
		}
		return e
	}
	for i, c := range cases {
		q := question{[2]esp32.Entry{entry(c.E0), entry(c.E1)}, c.AppCount, c.Factory}
		want := answer{c.BootIndex, [2]esp32.Entry{entry(c.After0), entry(c.After1)}, c.InitialContents == 1, c.Ops}
		got, err := real(b, q)
		if err != nil || !got.equal(want) {
			t.Errorf("vector %d, %v: %v\ngot  %v\nwant %v", i, q, err, got, want)
		}
	}
	t.Logf("%d vectors", len(cases))
}

// exhaustive is every record of a small world: sequences at both ends of the order,
// all states, right and wrong CRCs, and the erased record.
func exhaustive() []esp32.Entry {
	list := []esp32.Entry{esp32.BlankEntry()}
	for _, seq := range []uint32{0, 1, 2, 3, 5, 0xFFFFFFFE, 0xFFFFFFFF} {
		for _, state := range []uint32{esp32.StateNew, esp32.StatePending, esp32.StateValid, esp32.StateInvalid, esp32.StateAborted, esp32.StateUndefined} {
			e := esp32.NewEntry(seq, state)
			list = append(list, e)
			e[28] ^= 0x5A
			list = append(list, e)
		}
	}
	return list
}

// everyQuestion calls ask for each pair of records, 0 to 5 apps, with factory and
// without, or for every n-th of them.
func everyQuestion(n int, ask func(q question) bool) (asked int) {
	all := exhaustive()
	k := 0
	for _, e0 := range all {
		for _, e1 := range all {
			for apps := range uint32(6) {
				for _, factory := range []bool{false, true} {
					if k++; k%n != 0 {
						continue
					}
					asked++
					if !ask(question{[2]esp32.Entry{e0, e1}, apps, factory}) {
						return asked
					}
				}
			}
		}
	}
	return asked
}

func TestEveryPair(t *testing.T) {
	b := Open(t)
	every := 1
	if testing.Short() {
		every = 13 // shares no factor with the 12 worlds of a pair
	}
	var steps uint64
	asked := everyQuestion(every, func(q question) bool {
		ok := agree(t, b, q)
		steps += b.Steps
		return ok
	})
	if want := 85 * 85 * 12 / every; asked != want && !t.Failed() {
		t.Errorf("%d cases, %d expected", asked, want)
	}
	if steps < uint64(asked)*50 {
		t.Errorf("%d instructions for %d cases: nothing is executed", steps, asked)
	}
	t.Logf("%d cases, %d instructions", asked, steps)
}
