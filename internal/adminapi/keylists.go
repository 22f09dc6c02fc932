package adminapi

import (
	"context"
	"io"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// KeyList is a key list as the API shows it.
type KeyList struct {
	Version    uint32    `json:"version"`
	Generation uint32    `json:"generation"`
	SHA256     string    `json:"sha256" doc:"of the envelope"`
	AddedAt    time.Time `json:"added_at"`
}

func keyListOf(l fleet.KeyList) KeyList {
	return KeyList{Version: l.Version, Generation: l.Generation, SHA256: l.Digest.String(), AddedAt: l.AddedAt.UTC()}
}

// KeyListTaker decides about key lists.
type KeyListTaker interface {
	// AddKeyList takes the first list as it is, and every other if it follows the newest.
	AddKeyList(ctx context.Context, envelope []byte) (l fleet.KeyList, created bool, err error)
}

type keyListInput struct{ body io.Reader }

// Resolve keeps the body for the handler: an envelope is no JSON.
func (in *keyListInput) Resolve(ctx huma.Context) []error {
	r, _ := humago.Unwrap(ctx)
	in.body = r.Body
	return nil
}

// keyLists: who may sign, and what products take.
func (s *server) keyLists() {
	add := op("publish-keylist", "POST", "/keylists", "Publish a key list: its envelope is the body. The first one is taken as it is", status(201), func(o *huma.Operation) {
		o.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/cose": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}}
		o.Errors = append(o.Errors, 409, 413)
	})
	type addKeyListOutput struct {
		Status int
		Body   struct {
			KeyList KeyList `json:"keylist"`
			Created bool    `json:"created" doc:"false: it is the newest already"`
		}
	}
	huma.Register(s.api, add, func(ctx context.Context, in *keyListInput) (*addKeyListOutput, error) {
		envelope, err := io.ReadAll(&bounded{in.body, maxBody})
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		l, created, err := s.Taker.AddKeyList(ctx, envelope)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		o := &addKeyListOutput{Status: 201}
		if !created {
			o.Status = 200
		}
		o.Body.KeyList, o.Body.Created = keyListOf(l), created
		return o, nil
	})
	type keyListsOutput struct {
		Body struct {
			KeyLists []KeyList `json:"keylists"`
		}
	}
	huma.Register(s.api, op("list-keylists", "GET", "/keylists", "All key lists, newest first"), func(ctx context.Context, _ *empty) (*keyListsOutput, error) {
		list, err := s.KeyLists.ListKeyLists(ctx)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		o := &keyListsOutput{}
		o.Body.KeyLists = make([]KeyList, 0, len(list))
		for _, l := range list {
			o.Body.KeyLists = append(o.Body.KeyLists, keyListOf(l))
		}
		return o, nil
	})
	s.policies()
}
