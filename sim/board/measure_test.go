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

// TestWorkingSet: the struct, every buffer handed over, hash, MAC, records and
// image check, on a 64-bit machine; a microcontroller's pointers are half as long.
func TestWorkingSet(t *testing.T) {
	n := WorkingSet(1024, 2)
	t.Logf("working set %d bytes", n)
	if n > 3072 {
		t.Errorf("%d bytes, at most 3072 are allowed", n)
	}
}
