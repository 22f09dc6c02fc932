//go:build gocloud || gocloudtest

package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// Google's and Azure's storage, by gocloud.dev, in programs that are built with the
// tag gocloud (docs/adr/0006-object-storage.md). Neither service has been tried. The
// tag gocloudtest is for the test alone, on a bucket in memory: to compile what the
// services need takes minutes.

func init() {
	for _, scheme := range []string{"gs", "azblob"} {
		drivers[scheme] = openGocloud
		parameters[scheme] = nil // what they need they take from the environment
	}
}

func openGocloud(ctx context.Context, p place) (objects, error) {
	b, err := blob.OpenBucket(ctx, p.scheme+"://"+p.bucket)
	if err != nil {
		return nil, fmt.Errorf("bucket: %w", err)
	}
	return gocloud{b}, nil
}

type gocloud struct{ b *blob.Bucket }

func (g gocloud) get(ctx context.Context, key string) (io.ReadCloser, int64, error) {
	r, err := g.b.NewReader(ctx, key, nil)
	if err != nil {
		return nil, 0, gocloudError(err)
	}
	return r, r.Size(), nil
}

func (g gocloud) put(ctx context.Context, key string, src io.ReadSeeker, size int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := g.b.NewWriter(ctx, key, &blob.WriterOptions{ContentType: "application/octet-stream", CacheControl: objectCache, DisableContentTypeDetection: true})
	if err != nil {
		return gocloudError(err)
	}
	n, err := io.Copy(w, src)
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes came, and not %d", n, size)
	}
	if err != nil {
		cancel() // a writer whose context has ended stores nothing
		return errors.Join(gocloudError(err), ignoreEnd(w.Close()))
	}
	return gocloudError(w.Close())
}

// ignoreEnd: of a writer that was given up nothing else is to be heard.
func ignoreEnd(err error) error {
	if gcerrors.Code(err) == gcerrors.Canceled || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (g gocloud) stat(ctx context.Context, key string) (int64, time.Time, error) {
	a, err := g.b.Attributes(ctx, key)
	if err != nil {
		return 0, time.Time{}, gocloudError(err)
	}
	return a.Size, a.ModTime, nil
}

func (g gocloud) keys(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		list := g.b.List(&blob.ListOptions{Prefix: prefix, Delimiter: "/"})
		for {
			o, err := list.Next(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield("", gocloudError(err))
				return
			}
			if !yield(o.Key, nil) {
				return
			}
		}
	}
}

func (g gocloud) remove(ctx context.Context, key string) error {
	err := gocloudError(g.b.Delete(ctx, key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (g gocloud) sign(ctx context.Context, key string, valid time.Duration) (string, error) {
	u, err := g.b.SignedURL(ctx, key, &blob.SignedURLOptions{Expiry: valid})
	return u, gocloudError(err)
}

func gocloudError(err error) error {
	switch gcerrors.Code(err) {
	case gcerrors.OK:
		return nil
	case gcerrors.NotFound:
		return fmt.Errorf("%w: %v", fs.ErrNotExist, err)
	case gcerrors.PermissionDenied:
		return &refusal{err, "give this program's account the rights to list the bucket, and to get, put and delete its objects"}
	}
	return err
}
