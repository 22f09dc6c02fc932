package esp32

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"github.com/runnel-fota/runnel/core/internal/chiptest"
)

func TestSeqCRC(t *testing.T) {
	for seq, want := range map[uint32]uint32{0: 0xFFFFFFFF, 1: 0x4743989A, 2: 0x55F63774, 3: 0xED4A5011, 4: 0x709D68A8, 5: 0xC8210FCD, 0xFFFFFFFF: 0x2144DF1C} {
		if got := SeqCRC(seq); got != want {
			t.Errorf("sequence %d: %08X, want %08X", seq, got, want)
		}
	}
}

// TestSelectVectors holds Select against 1,200 cases that a real bootloader
// decided when its code was executed.
func TestSelectVectors(t *testing.T) {
	var cases []struct {
		E0, E1, After0, After1 string
		AppCount               uint32 `json:"app_count"`
		Factory                bool
		BootIndex              int32 `json:"boot_index"`
		InitialContents        int   `json:"initial_contents"`
		Ops                    []string
	}
	if err := json.Unmarshal(chiptest.Read(t, "testdata/otadata-select-vectors.json"), &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) != 1200 {
		t.Fatalf("%d cases, 1200 expected", len(cases))
	}
	entry := func(s string) (e Entry) {
		b, err := hex.DecodeString(s)
		if err != nil || len(b) != EntrySize {
			t.Fatalf("bad record %q", s)
		}
		copy(e[:], b)
		return e
	}
	for i, c := range cases {
		s := Select(entry(c.E0), entry(c.E1), c.AppCount, c.Factory, true)
		ops := []string{}
		for _, k := range s.Written[:s.Writes] {
			ops = append(ops, fmt.Sprintf("erase%d", k), fmt.Sprintf("write%d", k))
		}
		if s.BootIndex != c.BootIndex || s.After != [2]Entry{entry(c.After0), entry(c.After1)} ||
			s.InitialContents != (c.InitialContents == 1) || !reflect.DeepEqual(ops, c.Ops) {
			t.Errorf("case %d: index %d, want %d; initial %v, want %d; operations %v, want %v", i, s.BootIndex, c.BootIndex, s.InitialContents, c.InitialContents, ops, c.Ops)
		}
	}
}

func TestLoadOrder(t *testing.T) {
	cases := []struct {
		start int32
		n     uint32
		want  []int32
	}{
		{1, 2, []int32{1, 0, -1, -2}},
		{0, 2, []int32{0, -1, 1, -2}},
		{-1, 2, []int32{-1, 0, 1, -2}},
		{2, 4, []int32{2, 1, 0, -1, 3, -2}},
		{-1, 0, []int32{-1, -2}},
		{0, 0, []int32{0, -1, -2}},
	}
	for _, c := range cases {
		var got []int32
		for i := 0; ; i++ {
			k, ok := LoadOrder(c.start, c.n, i)
			if !ok {
				break
			}
			got = append(got, k)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("from %d of %d: %v, want %v", c.start, c.n, got, c.want)
		}
	}
}

// FuzzSelect: the bootloader's decision is in range, and it writes nothing but state words.
func FuzzSelect(f *testing.F) {
	a, b := NewEntry(1, StateNew), NewEntry(2, StatePending)
	f.Add(a[:], b[:], uint8(2), true, true)
	f.Add(b[:], a[:], uint8(0), false, true)
	f.Fuzz(func(t *testing.T, p0, p1 []byte, n uint8, factory, rollback bool) {
		var e [2]Entry
		copy(e[0][:], p0)
		copy(e[1][:], p1)
		s := Select(e[0], e[1], uint32(n), factory, rollback)
		if s.BootIndex < FactoryIndex || s.BootIndex > 0 && s.BootIndex >= int32(n) {
			t.Fatalf("index %d of %d", s.BootIndex, n)
		}
		if s.Writes > 0 && !rollback || int(s.Writes) > len(s.Written) {
			t.Fatalf("%d writes, rollback %v", s.Writes, rollback)
		}
		written := [2]bool{}
		for _, i := range s.Written[:s.Writes] {
			written[i] = true
		}
		for i := range e {
			was, is := e[i], s.After[i]
			copy(was[24:28], is[24:28])
			if was != is || is != e[i] && !written[i] {
				t.Fatalf("record %d: % X became % X, written %v", i, e[i], s.After[i], written[i])
			}
		}
		// Decided again, without a confirm: no state is left to change but NEW of
		// the next in force.
		if again := Select(s.After[0], s.After[1], uint32(n), factory, rollback); rollback && again.Writes > 2 {
			t.Fatalf("%d writes the second time", again.Writes)
		}
	})
}
