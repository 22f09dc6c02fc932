package stream

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand"
	"strconv"
	"testing"
	"unsafe"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/internal/chiptest"
)

const vectors = "../../testdata/vectors/native/"

// payload is that of the vectors: SHA-256 of "0", of "1" and so on, joined and cut.
func payload(n int) []byte {
	var p []byte
	for i := 0; len(p) < n; i++ {
		d := sha256.Sum256([]byte(strconv.Itoa(i)))
		p = append(p, d[:]...)
	}
	return p[:n]
}

// build makes the records and their hashes from the page, with the standard
// library: the code under test has no part in it.
func build(p []byte, chunk int) (records [][]byte, hashes [][HashSize]byte) {
	n := (len(p) + chunk - 1) / chunk
	records, hashes = make([][]byte, n), make([][HashSize]byte, n)
	for i := n - 1; i >= 0; i-- {
		pre := []byte("RNLR\x01\x00\x00\x00")
		for 1<<pre[5] != chunk {
			pre[5]++
		}
		records[i] = append(records[i], p[i*chunk:min(len(p), (i+1)*chunk)]...)
		if i == n-1 {
			pre[6] = 1
		} else {
			records[i] = append(records[i], hashes[i+1][:]...)
		}
		pre = binary.LittleEndian.AppendUint32(pre, uint32(i))
		pre = binary.LittleEndian.AppendUint32(pre, uint32(len(p)))
		hashes[i] = sha256.Sum256(append(pre, records[i]...))
	}
	return records, hashes
}

// slot is a Source over bytes, which counts what is read at once.
type slot struct {
	p     []byte
	most  int
	reads int
	fail  int // reads to fail
}

var errSlot = errors.New("read failed")

func (s *slot) ReadAt(p []byte, off uint32) error {
	if s.fail > 0 {
		s.fail--
		return errSlot
	}
	s.most, s.reads = max(s.most, len(p)), s.reads+1
	if int(off)+len(p) > len(s.p) {
		return flash.ErrRange
	}
	copy(p, s.p[off:])
	return nil
}

func TestSizes(t *testing.T) {
	t.Logf("Verifier %d bytes, Walk %d bytes", unsafe.Sizeof(Verifier{}), unsafe.Sizeof(Walk{}))
	if n := unsafe.Sizeof(Verifier{}) + unsafe.Sizeof(Walk{}); n > 104 {
		t.Errorf("Verifier and Walk take %d bytes", n)
	}
}

func TestRoots(t *testing.T) {
	var file struct {
		Streams []struct {
			Size, Chunk, Records uint32
			Root, Middle, Last   string
			FileSize             uint64 `json:"file_size"`
			FileSHA256           string `json:"file_sha256"`
		}
	}
	load(t, "stream-roots.json", &file)
	if len(file.Streams) < 10 {
		t.Fatalf("%d streams", len(file.Streams))
	}
	for _, v := range file.Streams {
		s := Shape{Size: v.Size, Chunk: v.Chunk}
		if !s.Valid() || s.Records() != v.Records || s.FileLen() != v.FileSize {
			t.Errorf("%+v: valid %v, %d records, %d bytes", s, s.Valid(), s.Records(), s.FileLen())
		}
		p := payload(int(v.Size))
		var h digest.SHA256
		var hash [HashSize]byte
		var next []byte
		for i := int(s.Records()) - 1; i >= 0; i-- {
			Hash(&h, s, uint32(i), p[uint32(i)*s.Chunk:][:s.ChunkLen(uint32(i))], next, &hash)
			next = hash[:]
			for name, at := range map[string]int{v.Root: 0, v.Middle: int(v.Records / 2), v.Last: int(v.Records) - 1} {
				if at == i && hex.EncodeToString(hash[:]) != name {
					t.Errorf("%+v: hash(%d) is %x, want %s", s, i, hash, name)
				}
			}
		}
		records, _ := build(p, int(v.Chunk))
		whole := sha256.Sum256(bytes.Join(records, nil))
		if hex.EncodeToString(whole[:]) != v.FileSHA256 {
			t.Errorf("%+v: the file of this test's own builder is not the vector's", s)
		}
	}
}

func TestWholeFile(t *testing.T) {
	var v struct {
		Size, Chunk   uint32
		Payload, Root string
		Records       []struct {
			Start                uint64
			Prefix, Record, Hash string
		}
	}
	load(t, "stream-file.json", &v)
	s := Shape{Size: v.Size, Chunk: v.Chunk}
	var root [HashSize]byte
	copy(root[:], unhex(t, v.Root))
	var ver Verifier
	var h digest.SHA256
	if err := ver.Begin(s, &root); err != 0 {
		t.Fatal(err)
	}
	var got []byte
	for i, r := range v.Records {
		if s.Start(uint32(i)) != r.Start {
			t.Errorf("record %d starts at %d, want %d", i, s.Start(uint32(i)), r.Start)
		}
		record := unhex(t, r.Record)
		sum := sha256.Sum256(append(unhex(t, r.Prefix), record...))
		if hex.EncodeToString(sum[:]) != r.Hash {
			t.Errorf("record %d: the vector is not true", i)
		}
		if err := ver.Accept(record, &h); err != 0 {
			t.Fatalf("record %d: %v", i, err)
		}
		got = append(got, record[:s.ChunkLen(uint32(i))]...)
	}
	if !ver.Done() || hex.EncodeToString(got) != v.Payload {
		t.Errorf("done %v, payload %x", ver.Done(), got)
	}
}

func load(t *testing.T, name string, v any) {
	t.Helper()
	if err := json.Unmarshal(chiptest.Read(t, vectors+name), v); err != nil {
		t.Fatal(err)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	p, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestShape(t *testing.T) {
	for _, s := range []Shape{{}, {1, 0}, {0, 256}, {1, 128}, {1, 255}, {1, 257}, {1, 384}, {1, 32768}, {1, 1 << 31}, {1, 1<<32 - 1}} {
		if s.Valid() {
			t.Errorf("%+v is taken", s)
		}
		var v Verifier
		var w Walk
		if v.Begin(s, new([HashSize]byte)) != ErrShape || w.Begin(s, 0, new([HashSize]byte)) != ErrShape {
			t.Errorf("%+v is taken", s)
		}
	}
	const most = 1<<32 - 1
	for chunk := uint32(MinChunk); chunk <= MaxChunk; chunk *= 2 {
		for _, size := range []uint32{1, chunk - 1, chunk, chunk + 1, 2*chunk - 1, 2 * chunk, most - chunk, most - 1, most} {
			s := Shape{size, chunk}
			n := s.Records()
			if !s.Valid() || uint64(n) != (uint64(size)+uint64(chunk)-1)/uint64(chunk) {
				t.Errorf("%+v: %d records", s, n)
			}
			last := n - 1
			if s.Start(last)+uint64(s.RecordLen(last)) != s.FileLen() {
				t.Errorf("%+v: the last record ends at %d, the file at %d", s, s.Start(last)+uint64(s.RecordLen(last)), s.FileLen())
			}
			if n > 1 && (s.ChunkLen(0) != chunk || s.RecordLen(0) != chunk+32 || s.Start(1) != uint64(chunk)+32) {
				t.Errorf("%+v: record 0 is wrong", s)
			}
			if s.ChunkLen(n) != 0 || s.RecordLen(n) != 0 || s.ChunkLen(most) != 0 || s.RecordLen(most) != 0 {
				t.Errorf("%+v: there is a record behind the last", s)
			}
			if uint64(last)*uint64(chunk)+uint64(s.ChunkLen(last)) != uint64(size) {
				t.Errorf("%+v: chunks do not add up", s)
			}
		}
	}
}

// feed gives the records to a verifier and returns how many it took, and why not more.
func feed(s Shape, root [HashSize]byte, records [][]byte) (int, Error) {
	var v Verifier
	var h digest.SHA256
	if err := v.Begin(s, &root); err != 0 {
		return 0, err
	}
	for i, r := range records {
		if err := v.Accept(r, &h); err != 0 {
			return i, err
		}
	}
	return len(records), 0
}

// TestEveryBit: a bit that is flipped anywhere in a stream is noticed at its
// record (V1), and the right record is taken afterwards (V2).
func TestEveryBit(t *testing.T) {
	p := payload(1000)
	s := Shape{1000, 256}
	records, hashes := build(p, 256)
	flips := 0
	for i := range records {
		for bit := range len(records[i]) * 8 {
			var v Verifier
			var h digest.SHA256
			v.Begin(s, &hashes[0])
			for j := range i {
				if err := v.Accept(records[j], &h); err != 0 {
					t.Fatalf("record %d: %v", j, err)
				}
			}
			records[i][bit/8] ^= 1 << (bit % 8)
			err := v.Accept(records[i], &h)
			records[i][bit/8] ^= 1 << (bit % 8)
			if err != ErrHash || v.Index() != uint32(i) {
				t.Fatalf("record %d, bit %d: %v, next is %d", i, bit, err, v.Index())
			}
			if err := v.Accept(records[i], &h); err != 0 {
				t.Fatalf("record %d after a flipped bit: %v", i, err)
			}
			flips++
		}
	}
	if flips != (1000+3*32)*8 {
		t.Errorf("%d bits were flipped", flips)
	}
}

// TestOtherStreams: a root stands for one payload, one size, one chunk size and
// one order, even where the bytes are the same.
func TestOtherStreams(t *testing.T) {
	p := make([]byte, 1024) // every chunk the same
	s := Shape{1024, 256}
	records, hashes := build(p, 256)
	if n, err := feed(s, hashes[0], records); n != 4 || err != 0 {
		t.Fatalf("the stream itself: %d, %v", n, err)
	}
	swapped := [][]byte{records[0], records[2], records[1], records[3]}
	shorter, _ := build(p[:1023], 256)
	for _, c := range []struct {
		name    string
		shape   Shape
		root    [HashSize]byte
		records [][]byte
		taken   int
		want    Error
	}{
		{"records swapped", s, hashes[0], swapped, 1, ErrHash},
		{"a record twice", s, hashes[0], [][]byte{records[0], records[0]}, 1, ErrHash},
		{"a record left out", s, hashes[0], records[1:], 0, ErrHash},
		{"cut inside a record", s, hashes[0], [][]byte{records[0], records[1][:200]}, 1, ErrLength},
		{"a byte more", s, hashes[0], [][]byte{append(append([]byte{}, records[0]...), 0)}, 0, ErrLength},
		{"an empty record", s, hashes[0], [][]byte{{}}, 0, ErrLength},
		{"ends a record early", s, hashes[0], [][]byte{records[0], records[1], records[2][:256]}, 2, ErrLength},
		{"a record behind the last", s, hashes[0], append(append([][]byte{}, records...), records[3]), 4, ErrDone},
		{"a smaller size of as many records", Shape{1023, 256}, hashes[0], shorter, 0, ErrHash},
		{"a smaller size", Shape{768, 256}, hashes[0], records, 0, ErrHash},
		{"a larger size", Shape{1025, 256}, hashes[0], records, 0, ErrHash},
		{"another chunk size", Shape{1024, 512}, hashes[0], records, 0, ErrLength},
		{"the root of a tail", s, hashes[1], records[1:], 0, ErrHash},
		{"the tail as a stream", Shape{768, 256}, hashes[1], records[1:], 0, ErrHash},
		{"the last record as a stream", Shape{256, 256}, hashes[3], records[3:], 0, ErrHash},
	} {
		if n, err := feed(c.shape, c.root, c.records); n != c.taken || err != c.want {
			t.Errorf("%s: %d taken, %v, want %d, %v", c.name, n, err, c.taken, c.want)
		}
	}
	// The same bytes in one record, with another chunk size: only P differs.
	_, one := build(p[:256], 256)
	_, two := build(p[:256], 512)
	if one[0] == two[0] {
		t.Error("two chunk sizes have one root")
	}
}

func TestUnprovenAcceptsNothing(t *testing.T) {
	records, hashes := build(payload(1000), 256)
	var v Verifier
	var w Walk
	var h digest.SHA256
	if v.Accept(records[0], &h) != ErrUnproven || v.Done() || w.Proven(new([HashSize]byte)) {
		t.Error("the zero values believe something")
	}
	if v.Resume(0, &hashes[0]) != ErrShape {
		t.Error("resumed without a stream")
	}
	v.Begin(Shape{1000, 256}, &hashes[0])
	if v.Resume(5, &hashes[0]) != ErrRange || w.Begin(Shape{1000, 256}, 5, &hashes[0]) != ErrRange {
		t.Error("resumed behind the end")
	}
	v.Resume(2, &hashes[2])
	if v.Accept(records[2], &h) != ErrUnproven { // V3
		t.Error("the right hash was believed without a walk")
	}
	if v.Prove(&w, &hashes[0]) {
		t.Error("proven by no walk")
	}
	v.Walk(&w)
	if v.Prove(&w, &hashes[0]) || v.Accept(records[2], &h) != ErrUnproven {
		t.Error("proven by a walk that is not done")
	}
	run(t, &w, &slot{p: payload(1000)}, 100)
	v.Resume(2, &hashes[3]) // another hash than the walk's
	if v.Prove(&w, &hashes[0]) {
		t.Error("a walk proved what was resumed after it began")
	}
}

// TestGoOn: with the hash that was kept, and with no other, a stream goes on at any
// record.
func TestGoOn(t *testing.T) {
	s := Shape{1000, 256}
	records, hashes := build(payload(1000), 256)
	var v Verifier
	var h digest.SHA256
	if v.GoOn(0, &hashes[0]) != ErrShape {
		t.Error("went on without a stream")
	}
	v.Begin(s, &hashes[0])
	if v.GoOn(4, &hashes[0]) != ErrRange {
		t.Error("went on behind the end")
	}
	var kept [][HashSize]byte
	for _, r := range records {
		var e [HashSize]byte
		v.Expected(&e)
		kept = append(kept, e)
		if err := v.Accept(r, &h); err != 0 {
			t.Fatal(err)
		}
	}
	for i := range records {
		for j := range kept {
			if v.GoOn(uint32(i), &kept[j]) != 0 || v.Index() != uint32(i) {
				t.Fatalf("record %d: does not go on", i)
			}
			if err := v.Accept(records[i], &h); (err == 0) != (i == j) {
				t.Errorf("record %d with the hash of %d: %v", i, j, err)
			}
		}
	}
}

// run walks to the end and returns the number of steps.
func run(t *testing.T, w *Walk, s *slot, buffer int) int {
	t.Helper()
	var h digest.SHA256
	buf := make([]byte, buffer)
	for n := 1; ; n++ {
		left := w.Left()
		done, err := w.Step(s, buf, &h)
		if err == errSlot { // tried again
			done, err = w.Step(s, buf, &h)
		}
		if err != nil {
			t.Fatal(err)
		}
		if w.Left() > left || n > 100_000 {
			t.Fatalf("a walk does not come forward: %d left after %d", w.Left(), left)
		}
		if done {
			return n
		}
	}
}

// TestResume: from every record on, over every kind of buffer, a walk over the
// right bytes with the right hash proves, and the stream goes on to its end.
func TestResume(t *testing.T) {
	for _, s := range []Shape{{1000, 256}, {1024, 256}, {1, 256}, {40000, 16384}, {9000, 4096}} {
		p := payload(int(s.Size))
		records, hashes := build(p, int(s.Chunk))
		for i := uint32(0); i <= s.Records(); i++ {
			for _, buffer := range []int{1000, 256, 4096, 20000} {
				var v Verifier
				var w Walk
				var h digest.SHA256
				var hash *[HashSize]byte
				if i < s.Records() {
					hash = &hashes[i]
				}
				// Behind the prefix lies what nobody wrote: it must not be looked at.
				src := &slot{p: append(append([]byte{}, p[:min(i*s.Chunk, s.Size)]...), 0xFF, 0xFF), fail: 1}
				v.Begin(s, &hashes[0])
				if v.Resume(i, hash) != 0 || v.Walk(&w) != 0 {
					t.Fatal("no walk")
				}
				steps := run(t, &w, src, buffer)
				if src.most > min(buffer, StepBytes) {
					t.Errorf("%d bytes in one step, with a buffer of %d", src.most, buffer)
				}
				b := min(buffer, StepBytes)
				if most := max(1, int(i)*((int(s.Chunk)+b-1)/b)); steps > most {
					t.Errorf("%+v: %d steps for %d records, want %d at most", s, steps, i, most)
				}
				if !v.Prove(&w, &hashes[0]) {
					t.Fatalf("%+v from record %d: not proven", s, i)
				}
				for _, r := range records[i:] {
					if err := v.Accept(r, &h); err != 0 {
						t.Fatalf("%+v: record %d: %v", s, v.Index(), err)
					}
				}
				if !v.Done() {
					t.Error("not done at the end")
				}
			}
		}
	}
}

// TestWalkNoticesEveryBit: of the flash, of the hash and of the root.
func TestWalkNoticesEveryBit(t *testing.T) {
	const seed = 3
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	s := Shape{1000, 256}
	p := payload(1000)
	_, hashes := build(p, 256)
	for i := uint32(1); i <= s.Records(); i++ {
		n := int(min(i*s.Chunk, s.Size))
		for range 300 {
			image, hash, root := append([]byte{}, p...), [HashSize]byte{}, hashes[0]
			whole := i == s.Records()
			if !whole {
				hash = hashes[i]
			}
			switch k := r.Intn(3); {
			case k == 0 || (k == 1 && whole):
				image[r.Intn(n)] ^= 1 << r.Intn(8)
			case k == 1:
				hash[r.Intn(HashSize)] ^= 1 << r.Intn(8)
			default:
				root[r.Intn(HashSize)] ^= 1 << r.Intn(8)
			}
			var w Walk
			w.Begin(s, i, &hash)
			run(t, &w, &slot{p: image}, 256)
			if w.Proven(&root) {
				t.Fatalf("record %d: a flipped bit was not noticed", i)
			}
		}
	}
}

func TestWalkBuffers(t *testing.T) {
	_, hashes := build(payload(1000), 256)
	var w Walk
	var h digest.SHA256
	w.Begin(Shape{1000, 256}, 1, &hashes[1])
	if done, err := w.Step(&slot{p: payload(1000)}, nil, &h); done || err != error(ErrSpace) {
		t.Errorf("without a buffer: %v, %v", done, err)
	}
	if done, err := w.Step(&slot{}, make([]byte, 256), &h); done || err != error(flash.ErrRange) || w.Left() != 1 {
		t.Errorf("with an empty slot: %v, %v", done, err)
	}
}

func TestErrorsHaveTexts(t *testing.T) {
	seen := map[string]bool{}
	for e := Error(0); e <= ErrSpace+1; e++ {
		if seen[e.Error()] {
			t.Errorf("error %d has the text of another: %s", e, e.Error())
		}
		seen[e.Error()] = true
	}
}

func TestNoAllocation(t *testing.T) {
	records, hashes := build(payload(1000), 256)
	src := &slot{p: payload(1000)}
	buf := make([]byte, 256)
	var v Verifier
	var w Walk
	var h digest.SHA256
	if n := chiptest.Allocs(10, func() {
		v.Begin(Shape{1000, 256}, &hashes[0])
		v.Accept(records[0], &h)
		w.Begin(Shape{1000, 256}, 1, &hashes[1])
		if _, err := w.Step(src, buf, &h); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzAccept: whatever comes, only the root's own records are taken.
func FuzzAccept(f *testing.F) {
	p := payload(700)
	s := Shape{700, 256}
	records, hashes := build(p, 256)
	file := bytes.Join(records, nil)
	f.Add(file, uint16(0), uint8(0))
	f.Add(file, uint16(300), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, at uint16, flip uint8) {
		in = append([]byte{}, in...)
		if len(in) > 0 {
			in[int(at)%len(in)] ^= flip
		}
		var v Verifier
		var h digest.SHA256
		v.Begin(s, &hashes[0])
		for i := 0; len(in) > 0; i++ {
			n := min(len(in), max(1, int(s.RecordLen(v.Index()))))
			err := v.Accept(in[:n], &h)
			right := i < len(records) && bytes.Equal(in[:n], records[i])
			if (err == 0) != right {
				t.Fatalf("record %d: %v, though right is %v", i, err, right)
			}
			if err != 0 {
				return
			}
			in = in[n:]
		}
	})
}

// FuzzWalk: over any flash, from any record, with any hash, only what is the
// payload's own prefix is proven, and always that.
func FuzzWalk(f *testing.F) {
	p := payload(700)
	s := Shape{700, 256}
	_, hashes := build(p, 256)
	f.Add(p, uint8(2), hashes[2][:], uint16(100))
	f.Add(p, uint8(3), []byte{}, uint16(4096))
	f.Add(p[:256], uint8(1), hashes[1][:], uint16(1))
	f.Add([]byte{}, uint8(0), hashes[0][:], uint16(1))
	f.Fuzz(func(t *testing.T, image []byte, from uint8, hash []byte, buffer uint16) {
		i := uint32(from) % (s.Records() + 1)
		n := int(min(i*s.Chunk, s.Size))
		full := make([]byte, 700)
		copy(full, image)
		var start [HashSize]byte
		copy(start[:], hash)
		var w Walk
		if err := w.Begin(s, i, &start); err != 0 {
			t.Fatal(err)
		}
		run(t, &w, &slot{p: full}, max(1, int(buffer)))
		right := bytes.Equal(full[:n], p[:n]) && (i == s.Records() || start == hashes[i])
		if w.Proven(&hashes[0]) != right {
			t.Fatalf("from record %d: proven %v, right %v", i, !right, right)
		}
	})
}
