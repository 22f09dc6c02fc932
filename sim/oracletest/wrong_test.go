package oracletest

import (
	"encoding/binary"
	"testing"

	"github.com/runnel-fota/runnel/core/esp32"
)

// The oracle is worth what it would notice. Each function here is the project's
// with one mistake, of a kind that was made somewhere before.

// with makes a selector of esp32.Select and a change of what it is asked, or of
// what it answered.
func with(before func(e *[2]esp32.Entry), after func(e0, e1 esp32.Entry, apps uint32, factory bool, s *esp32.Selection)) selector {
	return func(e0, e1 esp32.Entry, apps uint32, factory, rollback bool) esp32.Selection {
		e := [2]esp32.Entry{e0, e1}
		if before != nil {
			before(&e)
		}
		s := esp32.Select(e[0], e[1], apps, factory, rollback)
		if before != nil { // what it was asked is not what is in flash
			for i := range e {
				if s.After[i] == e[i] {
					s.After[i] = [2]esp32.Entry{e0, e1}[i]
				}
			}
		}
		if after != nil {
			after(e0, e1, apps, factory, &s)
		}
		return s
	}
}

var wrongSelectors = []struct {
	name string
	sel  selector
}{
	{"built without rollback", func(e0, e1 esp32.Entry, apps uint32, factory, _ bool) esp32.Selection {
		return esp32.Select(e0, e1, apps, factory, false)
	}},
	{"a tie goes to the second sector", with(nil, func(e0, e1 esp32.Entry, apps uint32, _ bool, s *esp32.Selection) {
		if a := s.After; a[0].Valid() && a[1].Valid() && a[0].Seq() == a[1].Seq() && a[0].State() == esp32.StatePending && e0.State() == esp32.StateNew {
			s.Written[s.Writes-1] = 1
		}
	})},
	{"the CRC is not looked at", with(func(e *[2]esp32.Entry) {
		for i := range e {
			binary.LittleEndian.PutUint32(e[i][28:], esp32.SeqCRC(e[i].Seq()))
		}
	}, nil)},
	{"sequence 0 is empty", with(func(e *[2]esp32.Entry) {
		for i := range e {
			if e[i].Seq() == 0 {
				e[i] = esp32.BlankEntry()
			}
		}
	}, nil)},
	{"slot by the sequence, not by the one below", with(nil, func(_, _ esp32.Entry, apps uint32, _ bool, s *esp32.Selection) {
		if a := esp32.Active(&s.After[0], &s.After[1]); s.BootIndex >= 0 && a >= 0 && apps > 0 {
			s.BootIndex = int32(s.After[a].Seq() % apps)
		}
	})},
	{"only a record with a right CRC is aborted", with(nil, func(e0, e1 esp32.Entry, _ uint32, _ bool, s *esp32.Selection) {
		for i, e := range [2]esp32.Entry{e0, e1} {
			if e.State() == esp32.StatePending && !e.CRCOK() {
				s.After[i] = e
			}
		}
	})},
	{"without a record in force slot 0, not factory", with(nil, func(_, _ esp32.Entry, _ uint32, factory bool, s *esp32.Selection) {
		if s.BootIndex == esp32.FactoryIndex && !factory {
			s.BootIndex = 0
		}
	})},
	{"initial contents are told with factory too", with(nil, func(e0, e1 esp32.Entry, _ uint32, factory bool, s *esp32.Selection) {
		named := func(e esp32.Entry) bool { return e.Seq() != 0xFFFFFFFF && e.CRCOK() }
		if factory && !named(e0) && !named(e1) {
			s.InitialContents = true
		}
	})},
	{"sectors are written in descending order", with(nil, func(_, _ esp32.Entry, _ uint32, _ bool, s *esp32.Selection) {
		if s.Writes == 2 {
			s.Written[0], s.Written[1] = s.Written[1], s.Written[0]
		}
	})},
	{"the label is erased with the state", with(nil, func(_, _ esp32.Entry, _ uint32, _ bool, s *esp32.Selection) {
		for _, i := range s.Written[:s.Writes] {
			s.After[i] = esp32.NewEntry(s.After[i].Seq(), s.After[i].State())
		}
	})},
}

// TestWrongSelectors: each mistake is seen among the pairs of TestEveryPair, with
// labels that are not erased.
func TestWrongSelectors(t *testing.T) {
	b := Open(t)
	every := 37
	if testing.Short() {
		every = 101
	}
	for _, w := range wrongSelectors {
		differ := 0
		asked := everyQuestion(every, func(q question) bool {
			for i := range q.e {
				if q.e[i] != esp32.BlankEntry() {
					q.e[i][10] = 0x55
				}
			}
			want, err := real(b, q)
			if err != nil {
				t.Fatal(err)
			}
			if !ours(esp32.Select, q).equal(want) {
				t.Fatalf("%v: the right one differs", q)
			}
			if !ours(w.sel, q).equal(want) {
				differ++
			}
			return true
		})
		if differ == 0 {
			t.Errorf("%s: not noticed in %d cases", w.name, asked)
		}
		t.Logf("%s: %d of %d cases differ", w.name, differ, asked)
	}
}

var wrongOrders = []struct {
	name string
	next order
}{
	{"factory after all slots", func(start int32, n uint32, i int) (int32, bool) {
		down, all := int(start+1), int(max(start+1, int32(n)))
		switch {
		case i >= down && i < all:
			return int32(i), true
		case i == all:
			return esp32.FactoryIndex, true
		}
		return esp32.LoadOrder(start, n, i)
	}},
	{"no way up", func(start int32, n uint32, i int) (int32, bool) {
		k, ok := esp32.LoadOrder(start, n, i)
		return k, ok && k <= start
	}},
	{"no test partition", func(start int32, n uint32, i int) (int32, bool) {
		k, ok := esp32.LoadOrder(start, n, i)
		return k, ok && k != esp32.TestIndex
	}},
}

// TestWrongOrders: the same for the load.
func TestWrongOrders(t *testing.T) {
	b := Open(t)
	e := [2]esp32.Entry{esp32.BlankEntry(), esp32.BlankEntry()}
	for _, w := range wrongOrders {
		differ := 0
		asked := everyLoad(func(c loadCase) {
			want, err := realLoad(b, c, e)
			if err != nil {
				t.Fatal(err)
			}
			if !oursLoad(w.next, c, e).equal(want) {
				differ++
			}
		})
		if differ == 0 {
			t.Errorf("%s: not noticed in %d cases", w.name, asked)
		}
		t.Logf("%s: %d of %d cases differ", w.name, differ, asked)
	}
}
