package release

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/stream"
)

// Progress is told how far long work is, in bytes of total; done is 0 at its start.
type Progress func(what string, done, total int64)

func (p Progress) tell(what string, done, total int64) {
	if p != nil {
		p(what, done, total)
	}
}

// payloadReader lets the reading of a payload be watched and stopped.
type payloadReader struct {
	ctx      context.Context
	src      io.ReaderAt
	progress Progress
	what     string
	done     int64
	total    int64
}

func (r *payloadReader) ReadAt(p []byte, off int64) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.src.ReadAt(p, off)
	if r.done += int64(n); r.done>>18 != (r.done-int64(n))>>18 { // every 256 KiB
		r.progress.tell(r.what, r.done, r.total)
	}
	return n, err
}

// rawRoot is the root of a payload's raw stream.
func rawRoot(ctx context.Context, src io.ReaderAt, s stream.Shape, p Progress) (Hash, error) {
	r := &payloadReader{ctx: ctx, src: src, progress: p, what: fmt.Sprintf("hashing %d-byte chunks", s.Chunk), total: int64(s.Size)}
	return StreamRoot(r, s.Size, s.Chunk)
}

// RawFile is what a raw stream is as a file: nothing of it is kept.
type RawFile struct {
	Root   Hash
	Digest Hash  // SHA-256 of the file
	Length int64 // of the file in bytes
}

// DescribeRaw computes root and file digest of a payload's raw stream.
func DescribeRaw(ctx context.Context, src io.ReaderAt, size, chunk uint32, p Progress) (*RawFile, error) {
	r := &payloadReader{ctx: ctx, src: src, progress: p, what: fmt.Sprintf("hashing %d-byte chunks", chunk), total: 2 * int64(size)}
	root, file, length, err := BuildStream(io.Discard, r, size, chunk)
	if err != nil {
		return nil, err
	}
	return &RawFile{Root: root, Digest: file, Length: length}, nil
}

// CheckStream reads a stream file and holds every record against the root. It
// needs no more memory than a record, and answers the file's SHA-256.
func CheckStream(ctx context.Context, r io.Reader, s stream.Shape, root Hash, p Progress) (Hash, error) {
	var v stream.Verifier
	var h digest.SHA256
	if err := v.Begin(s, (*[32]byte)(&root)); err != 0 {
		return Hash{}, err
	}
	sum := sha256.New()
	buf := make([]byte, s.Chunk+stream.HashSize)
	for i := range s.Records() {
		if i%256 == 0 {
			if err := ctx.Err(); err != nil {
				return Hash{}, err
			}
			p.tell("checking a stream", int64(s.Start(i)), int64(s.FileLen()))
		}
		record := buf[:s.RecordLen(i)]
		if _, err := io.ReadFull(r, record); err != nil {
			return Hash{}, fmt.Errorf("record %d of %d: %w", i, s.Records(), ended(err))
		}
		if err := v.Accept(record, &h); err != 0 {
			return Hash{}, fmt.Errorf("record %d of %d: %w", i, s.Records(), err)
		}
		sum.Write(record)
	}
	return Hash(sum.Sum(nil)), nil
}

// ended makes one thing of the two ways in which a file is too short.
func ended(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
