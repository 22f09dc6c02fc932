package release

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/stream"
	"github.com/runnel-fota/runnel/internal/testenv"
)

// streamPayload is that of the vectors: SHA-256 of "0", of "1" and so on.
func streamPayload(n int) []byte {
	var p []byte
	for i := 0; len(p) < n; i++ {
		d := sha256.Sum256([]byte(strconv.Itoa(i)))
		p = append(p, d[:]...)
	}
	return p[:n]
}

func TestStreamVectors(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(testenv.Root(), "testdata", "vectors", "native", "stream-roots.json"))
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Streams []struct {
			Size, Chunk uint32
			Root        string
			FileSize    int64  `json:"file_size"`
			FileSHA256  string `json:"file_sha256"`
		}
	}
	if err := json.Unmarshal(text, &v); err != nil || len(v.Streams) < 10 {
		t.Fatalf("%d streams, %v", len(v.Streams), err)
	}
	for _, s := range v.Streams {
		var out bytes.Buffer
		image := streamPayload(int(s.Size))
		// Bytes behind the image are not part of it.
		longer := bytes.NewReader(append(image[:len(image):len(image)], 1, 2, 3))
		root, file, length, err := BuildStream(&out, longer, s.Size, s.Chunk)
		if err != nil {
			t.Fatal(err)
		}
		if hex.EncodeToString(root[:]) != s.Root || hex.EncodeToString(file[:]) != s.FileSHA256 || length != s.FileSize {
			t.Errorf("%d bytes in chunks of %d: root %x, file %x of %d bytes", s.Size, s.Chunk, root, file, length)
		}
		if sha256.Sum256(out.Bytes()) != file || int64(out.Len()) != length {
			t.Error("what was written is not what was returned")
		}
		if got, err := StreamRoot(bytes.NewReader(image), s.Size, s.Chunk); err != nil || got != root {
			t.Errorf("StreamRoot: %x, %v", got, err)
		}
		readBack(t, out.Bytes(), image, root, stream.Shape{Size: s.Size, Chunk: s.Chunk})
	}
}

// readBack reads a stream as a device does.
func readBack(t *testing.T, file, image []byte, root [32]byte, s stream.Shape) {
	t.Helper()
	var v stream.Verifier
	var h digest.SHA256
	if err := v.Begin(s, &root); err != 0 {
		t.Fatal(err)
	}
	var got []byte
	for !v.Done() {
		i := v.Index()
		r := file[s.Start(i):][:s.RecordLen(i)]
		if err := v.Accept(r, &h); err != 0 {
			t.Fatalf("record %d: %v", i, err)
		}
		got = append(got, r[:s.ChunkLen(i)]...)
	}
	if !bytes.Equal(got, image) {
		t.Error("another image came out")
	}
}

// changing is an image that is another one from the given read on.
type changing struct {
	p     []byte
	reads int
}

func (c *changing) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, c.p[off:])
	if c.reads--; c.reads < 0 {
		p[0] ^= 1
	}
	return n, nil
}

type fullDisk struct{}

var errFull = errors.New("disk full")

func (fullDisk) Write([]byte) (int, error) { return 0, errFull }

func TestStreamRefusals(t *testing.T) {
	image := streamPayload(1000)
	build := func(w io.Writer, r io.ReaderAt, size, chunk uint32) error {
		root, file, length, err := BuildStream(w, r, size, chunk)
		if err != nil && (root != [32]byte{} || file != [32]byte{} || length != 0) {
			t.Error("an error and a result")
		}
		return err
	}
	for _, c := range []struct {
		name string
		err  error
		want error
	}{
		{"no bytes", build(io.Discard, bytes.NewReader(image), 0, 256), stream.ErrShape},
		{"chunk size", build(io.Discard, bytes.NewReader(image), 1000, 300), stream.ErrShape},
		{"image too short", build(io.Discard, bytes.NewReader(image), 1001, 256), io.ErrUnexpectedEOF},
		{"writer fails", build(fullDisk{}, bytes.NewReader(image), 1000, 256), errFull},
		{"image changes", build(io.Discard, &changing{image, 6}, 1000, 256), stream.ErrHash},
		{"image does not change", build(io.Discard, &changing{image, 8}, 1000, 256), nil},
	} {
		if !errors.Is(c.err, c.want) || (c.want == nil) != (c.err == nil) {
			t.Errorf("%s: %v, want %v", c.name, c.err, c.want)
		}
	}
	if _, err := StreamRoot(bytes.NewReader(image), 1001, 256); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("StreamRoot of a short image: %v", err)
	}
}

func BenchmarkBuildStream(b *testing.B) {
	image := streamPayload(1 << 20)
	b.SetBytes(int64(len(image)))
	for b.Loop() {
		if _, _, _, err := BuildStream(io.Discard, bytes.NewReader(image), 1<<20, 4096); err != nil {
			b.Fatal(err)
		}
	}
}
