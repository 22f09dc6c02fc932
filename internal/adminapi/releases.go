package adminapi

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Release is a release as the API shows it.
type Release struct {
	ID          int64     `json:"id"`
	Product     string    `json:"product"`
	Version     string    `json:"version"`
	Digest      string    `json:"digest" doc:"SHA-256 of the image, 64 hex digits"`
	Size        int64     `json:"size" doc:"bytes"`
	Chip        string    `json:"chip"`
	Project     string    `json:"project"`
	AppVersion  string    `json:"app_version"`
	IDFVersion  string    `json:"idf_version"`
	ChunkSize   int       `json:"chunk_size" doc:"bytes"`
	Chunks      int       `json:"chunks"`
	State       string    `json:"state" enum:"draft,published,withdrawn"`
	PublishedAt time.Time `json:"published_at" doc:"of a draft: when it was taken in"`
	Channel     string    `json:"channel,omitempty" doc:"what is in one is given out by rollouts alone"`
	Notes       string    `json:"notes,omitempty"`

	Signed          bool   `json:"signed" doc:"it has a manifest; the next five are of that"`
	Epoch           uint32 `json:"epoch"`
	Sequence        uint32 `json:"sequence" doc:"0: unsigned"`
	SecurityVersion uint32 `json:"security_version"`
	Slot            *uint8 `json:"slot,omitempty" doc:"it is the build for this slot; absent: for any"`
	ManifestDigest  string `json:"manifest_digest,omitempty" doc:"SHA-256 of its envelope, 64 hex digits"`
}

func releaseOf(r fleet.Release) Release {
	o := Release{ID: r.ID, Product: r.Product, Version: r.Version, Digest: r.Image.Digest.String(), Size: r.Image.Size,
		Chip: r.Image.Chip, Project: r.Image.Project, AppVersion: r.Image.AppVersion, IDFVersion: r.Image.IDFVersion,
		ChunkSize: r.ChunkSize, Chunks: r.Chunks(), State: string(r.State), PublishedAt: r.PublishedAt.UTC(), Channel: r.Channel, Notes: r.Notes,
		Signed: r.Signed(), Epoch: r.Epoch, Sequence: r.Sequence, SecurityVersion: r.SecurityVersion}
	if r.HasSlot {
		o.Slot = &r.Slot
	}
	if o.Signed {
		o.ManifestDigest = r.ManifestDigest.String()
	}
	return o
}

// Published answers a publishing.
type Published struct {
	Release Release `json:"release"`
	Created bool    `json:"created" doc:"false: the same release was there"`
	Warning string  `json:"warning,omitempty"`
}

// releaseFile is the media type of a release file. The type alone says what a
// body is: nothing is guessed.
const releaseFile = "application/vnd.runnel.release"

type publishInput struct {
	ContentType string `header:"Content-Type" doc:"application/vnd.runnel.release is a release file; anything else an unsigned image"`
	Product     string `query:"product" doc:"name or vendor/name; an image needs it, a release file says it"`
	Version     string `query:"version" doc:"the same"`
	ChunkSize   int    `query:"chunk_size" doc:"bytes, 256 to 16384; of an image. Absent: the product's default, which is 1024 unless its terms say otherwise"`
	SHA256      string `query:"sha256" doc:"of the image, 64 hex digits; checked if given"`
	Draft       bool   `query:"draft" doc:"take it in and check it, and offer it to nobody until it is published"`
	Channel     string `query:"channel" maxLength:"64"`
	Notes       string `query:"notes" doc:"for people, 2048 bytes at most"`

	signed bool
	body   io.Reader
	size   int64 // bytes, 0: not known
}

// Resolve keeps the body for the handler, which streams it: huma would hold all
// of it in memory. The server's time-outs are for small bodies.
func (in *publishInput) Resolve(ctx huma.Context) (errs []error) {
	kind, _, err := mime.ParseMediaType(in.ContentType)
	in.signed = err == nil && kind == releaseFile
	for name, value := range map[string]string{"product": in.Product, "version": in.Version, "sha256": in.SHA256} {
		where := "query." + name
		switch {
		case in.signed && value != "":
			errs = append(errs, &huma.ErrorDetail{Message: "a release file says it itself", Location: where})
		case !in.signed && value == "" && name != "sha256":
			errs = append(errs, &huma.ErrorDetail{Message: "required query parameter is missing", Location: where})
		}
	}
	r, w := humago.Unwrap(ctx)
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(uploadTimeout))
	_ = c.SetWriteDeadline(time.Now().Add(uploadTimeout + time.Minute))
	in.body, in.size = r.Body, max(r.ContentLength, 0)
	return errs
}

// bounded ends with CodeTooLarge behind left bytes.
type bounded struct {
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	if int64(n) > b.left {
		return int(b.left), fleet.Errorf(fleet.CodeTooLarge, "the body is larger than the server takes")
	}
	b.left -= int64(n)
	if err != nil && err != io.EOF {
		err = &fleet.Error{Code: fleet.CodeInvalid, Message: "the upload broke off", Err: err}
	}
	return n, err
}

type releaseOutput struct{ Body Release }

type releasesOutput struct {
	Body struct {
		Releases []Release `json:"releases"`
	}
}

type idInput struct {
	ID int64 `path:"id" doc:"the release's"`
}

type publishOutput struct {
	Status int
	Body   Published
}

func published(r fleet.Release, created bool, warning string) *publishOutput {
	o := &publishOutput{Status: http.StatusCreated, Body: Published{releaseOf(r), created, warning}}
	if !created {
		o.Status = http.StatusOK
	}
	return o
}

func (s *server) releases() {
	publish := op("publish-release", "POST", "/releases", "Publish a release file, or an unsigned image: its raw bytes are the body", status(http.StatusCreated),
		func(o *huma.Operation) {
			binary := &huma.MediaType{Schema: &huma.Schema{Type: "string", Format: "binary"}}
			o.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/octet-stream": binary, releaseFile: binary}}
			o.Errors = append(o.Errors, 403, 409, 413, 422, 507)
		})
	huma.Register(s.api, publish, func(ctx context.Context, in *publishInput) (*publishOutput, error) {
		say := fleet.Publication{Draft: in.Draft, Notes: in.Notes, Channel: in.Channel}
		if err := fleet.ValidateWords(say.Channel, say.Notes); err != nil {
			return nil, s.fail(ctx, err)
		}
		if in.signed {
			r, created, err := s.Publisher.PublishRelease(ctx, &bounded{in.body, s.MaxRelease}, in.size, say)
			if err != nil {
				return nil, s.fail(ctx, err)
			}
			return published(r, created, ""), nil
		}
		var digest *fleet.Digest
		if in.SHA256 != "" {
			d, err := fleet.ParseDigest(in.SHA256)
			if err != nil {
				return nil, s.fail(ctx, fleet.Errorf(fleet.CodeInvalid, "sha256: %v", err))
			}
			digest = &d
		}
		if err := errors.Join(fleet.ValidateProduct(in.Product), fleet.ValidateVersion(in.Version)); err != nil {
			return nil, s.fail(ctx, err)
		}
		if in.ChunkSize == 0 {
			p, err := s.Policies.Policy(ctx, in.Product)
			if err != nil {
				return nil, s.fail(ctx, err)
			}
			in.ChunkSize = p.Terms.DefaultChunk()
		}
		warning, err := fleet.CheckChunkSize(in.ChunkSize)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		r, created, err := s.Publisher.PublishImage(ctx, in.Product, in.Version, in.ChunkSize, digest, &bounded{in.body, s.MaxImage}, say)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return published(r, created, warning), nil
	})
	type listInput struct {
		Product string `query:"product" doc:"only this product's"`
		Channel string `query:"channel" doc:"only this channel's"`
	}
	huma.Register(s.api, op("list-releases", "GET", "/releases", "All releases, newest first"), func(ctx context.Context, in *listInput) (*releasesOutput, error) {
		list, err := s.Releases.ListReleases(ctx, in.Product)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		o := &releasesOutput{}
		o.Body.Releases = make([]Release, 0, len(list))
		for _, r := range list {
			if in.Channel == "" || r.Channel == in.Channel {
				o.Body.Releases = append(o.Body.Releases, releaseOf(r))
			}
		}
		return o, nil
	})
	huma.Register(s.api, op("show-release", "GET", "/releases/{id}", "One release, with its manifest, signers and streams"), func(ctx context.Context, in *idInput) (*detailOutput, error) {
		d, err := s.detail(ctx, in.ID)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return &detailOutput{d}, nil
	})
	huma.Register(s.api, op("withdraw-release", "POST", "/releases/{id}/withdraw", "Offer it to no device any more, in none of its builds"), func(ctx context.Context, in *idInput) (*releaseOutput, error) {
		r, err := s.Releases.Withdraw(ctx, in.ID, s.Now())
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return &releaseOutput{releaseOf(r)}, nil
	})
	huma.Register(s.api, op("publish-draft", "POST", "/releases/{id}/publish", "Publish a draft, in all of its builds", func(o *huma.Operation) { o.Errors = append(o.Errors, 409) }), func(ctx context.Context, in *idInput) (*releaseOutput, error) {
		r, err := s.Drafts.PublishDraft(ctx, in.ID, s.Now())
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return &releaseOutput{releaseOf(r)}, nil
	})
	type wordsInput struct {
		ID   int64 `path:"id" doc:"the release's"`
		Body struct {
			Notes   *string `json:"notes,omitempty" maxLength:"2048"`
			Channel *string `json:"channel,omitempty" maxLength:"64" doc:"empty: none"`
		}
	}
	huma.Register(s.api, op("set-words", "POST", "/releases/{id}", "Change its notes or its channel, in all of its builds"), func(ctx context.Context, in *wordsInput) (*releaseOutput, error) {
		if in.Body.Notes == nil && in.Body.Channel == nil {
			return nil, s.fail(ctx, fleet.Errorf(fleet.CodeInvalid, "neither notes nor channel is said"))
		}
		r, err := s.Drafts.SetWords(ctx, in.ID, fleet.Words{Notes: in.Body.Notes, Channel: in.Body.Channel}, s.Now())
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return &releaseOutput{releaseOf(r)}, nil
	})
}
