package dir

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"

	"github.com/runnel-fota/runnel/internal/blob"
	"github.com/runnel-fota/runnel/internal/fleet"
)

var _ blob.Stager = (*Dir)(nil)

// Stage implements blob.Stager.
func (d *Dir) Stage(ctx context.Context, room int64) (blob.Staged, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p := &put{d: d, sha: sha256.New()}
	if room <= 0 {
		room = -1
	}
	if err := p.start(room); err != nil {
		return nil, err
	}
	return &staged{p: p}, nil
}

// staged is a put that its owner feeds.
type staged struct{ p *put }

// Write implements io.Writer. After an error nothing more is taken.
func (s *staged) Write(b []byte) (int, error) {
	if s.p.f == nil {
		return 0, fs.ErrClosed
	}
	if err := s.p.write(b); err != nil {
		s.Abort()
		return 0, err
	}
	return len(b), nil
}

// ReadAt implements io.ReaderAt. The room that was taken beyond what was written
// is none of the content.
func (s *staged) ReadAt(b []byte, off int64) (int, error) {
	if s.p.f == nil {
		return 0, fs.ErrClosed
	}
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	want := len(b)
	b = b[:min(int64(want), max(s.p.written-off, 0))]
	n, err := s.p.f.ReadAt(b, off)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return n, diskError("read", err)
	case n < want:
		return n, io.EOF
	}
	return n, nil
}

// Commit implements blob.Staged.
func (s *staged) Commit(ctx context.Context) (fleet.Digest, bool, error) {
	if s.p.f == nil {
		return fleet.Digest{}, false, fs.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		s.Abort()
		return fleet.Digest{}, false, err
	}
	d, created, err := s.p.finish(ctx)
	if err != nil {
		s.Abort()
		return fleet.Digest{}, false, err
	}
	s.p.path = ""
	return d, created, nil
}

// Abort implements blob.Staged.
func (s *staged) Abort() {
	s.p.abort()
	s.p.path = ""
}
