package ingest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/runnel-fota/runnel/internal/derive"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
)

// Derived streams: those that come with a release are applied before it is published, and
// those that this server made are stored and published one by one.

// prove applies the derived streams of the file, and refuses one that does not make the
// image, or that this program can't apply. A patch from an image that is not held is taken
// by its signature alone.
func (t *taking) prove() error {
	im := &t.c.Manifest.Image
	for i, d := range t.c.Derived {
		base, held, err := t.s.base(t.ctx, d.Sheet)
		if err != nil {
			return err
		}
		if !held {
			continue
		}
		image := derive.Image{Bytes: readerAt{t.ctx, t.image}, Size: im.Size, Chunk: im.Streams[0].Chunk}
		err = derive.Prove(t.ctx, d.Sheet, readerAt{t.ctx, t.staged[1+i]}, base, image)
		if base != nil {
			err = errors.Join(err, base.Close())
		}
		if err != nil {
			return unproven(i, t.c, err)
		}
		t.streams[i].Proven = true
	}
	return nil
}

func unproven(i int, c *release.Contents, err error) error {
	var read *derive.ReadError
	if errors.As(err, &read) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err // nobody's fault of the file
	}
	return &fleet.Error{Code: fleet.CodeInvalid, Message: fleet.CleanText(fmt.Sprintf("stream-%02d.bin does not make the image of %s %s: %v", i, c.Manifest.Product, c.Manifest.Version, err), maxReason),
		Hint: "nothing of the file was published; sign the release again, without it or with one that 'runnel sign --patch-from' makes"}
}

// base opens the image that a sheet's stream starts from; nil for a compressed one, and
// not held where it is not here, or damaged: that is fsck's to say.
func (s *Service) base(ctx context.Context, sheet *release.Sheet) (f *os.File, held bool, err error) {
	if sheet.BaseSize == 0 {
		return nil, true, nil
	}
	f, err = s.blobs.Open(ctx, fleet.Digest(sheet.BaseDigest))
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err == nil && (n != int64(sheet.BaseSize) || release.Hash(sum.Sum(nil)) != sheet.BaseDigest) {
		return nil, false, f.Close()
	}
	if err != nil {
		return nil, false, errors.Join(err, f.Close())
	}
	return f, true, nil
}

// errLost is how a stream that somebody else makes by now is left behind.
var errLost = &fleet.Error{Code: fleet.CodeConflict, Message: "another server makes this stream"}

// AddDerived stores a derived stream of a product's release that this server made and
// proved, and publishes it as the end of d; false where d is another maker's by now, and
// then nothing is left. CodeInvalid where the newest key list does not let the sheet's signer sign for the product.
func (s *Service) AddDerived(ctx context.Context, d fleet.Derivation, maker, product string, m fleet.Stream, file []byte) (published bool, err error) {
	st, err := s.stage(ctx, int64(len(file)))
	if err != nil {
		return false, err
	}
	defer st.Abort()
	if _, err := st.Write(file); err != nil {
		return false, err
	}
	s.pin(m.Digest)
	defer func() {
		gone := err
		if err == nil && !published {
			gone = errLost
		}
		s.unpin(ctx, gone, m.Digest)
	}()
	if got, _, err := st.Commit(ctx); err != nil {
		return false, err
	} else if got != m.Digest {
		return false, fleet.Errorf(fleet.CodeInternal, "the image store took other bytes than were made")
	}
	m.Proven = true
	s.publishing.Lock()
	defer s.publishing.Unlock()
	for range tries {
		trust, err := s.trust(ctx)
		if err != nil {
			return false, err
		}
		if _, err := trust.Sheet(m.Sheet, product); err != nil {
			return false, &fleet.Error{Code: fleet.CodeInvalid, Message: fleet.CleanText(err.Error(), maxReason), Hint: "put the server's stream key into the key list: 'runnel keys server --help'"}
		}
		published, err = s.derivations.PublishDerived(ctx, d, maker, m, trust.Version, s.now())
		if !errors.Is(err, fleet.ErrListMoved) {
			return published, err
		}
	}
	return false, fleet.Errorf(fleet.CodeBusy, "key lists change too fast")
}
