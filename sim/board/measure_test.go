package board

import "testing"

func TestAllocsPerChunk(t *testing.T) {
	n, err := AllocsPerChunk()
	if err != nil {
		t.Fatal(err)
	}
	if n != 0 {
		t.Errorf("%v allocations a chunk", n)
	}
}

func TestAllocsPerRecord(t *testing.T) {
	p := newTrustees(t, 1, 1)
	r := p.release(t, image(t, 64*1024, "B", BehaveOK), "B", 1, 1024)
	n, err := AllocsPerRecord(SignedStream{Native: &Native{Device: "measure", Product: testProduct, Hardware: "esp32"}, Envelope: r.envelope, File: r.stream})
	if err != nil {
		t.Fatal(err)
	}
	if n != 0 {
		t.Errorf("%v allocations a record", n)
	}
}

// TestWorkingSet: the struct, every buffer handed over, hash, MAC, records and
// image check, on a 64-bit machine; a microcontroller's pointers are half as long.
func TestWorkingSet(t *testing.T) {
	for _, c := range []struct {
		name         string
		kind         Kind
		chunk, limit int
	}{{"v1", V1, 1024, 3072}, {"native", NativeWire, 1024, 3072}, {"native", NativeWire, 4096, 6656}} {
		n := WorkingSet(c.kind, c.chunk, 2)
		t.Logf("%s, chunks of %d: working set %d bytes of %d", c.name, c.chunk, n, c.limit)
		if n > c.limit {
			t.Errorf("%s, chunks of %d: %d bytes, at most %d are allowed", c.name, c.chunk, n, c.limit)
		}
	}
	t.Logf("a signature check's state, apart: %d bytes", VerifierBytes())
}
