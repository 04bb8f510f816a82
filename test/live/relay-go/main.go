// A relay for the live lane: khatru over an event store that gives a quarter of its limit where none is asked for, with
// NIP-77, and private messages only for who has logged in. Usage: relay HOST:PORT FOLDER
package main

import (
	"context"
	"log"
	"net/http"
	"os"
	"slices"

	"github.com/fiatjaf/eventstore/badger"
	"github.com/fiatjaf/khatru"
	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip11"
)

func main() {
	store := badger.BadgerBackend{Path: os.Args[2], MaxLimit: 40}
	if err := store.Init(); err != nil {
		log.Fatal(err)
	}
	relay := khatru.NewRelay()
	relay.Info.Limitation = &nip11.RelayLimitationDocument{MaxLimit: 40, MaxSubscriptions: 10}
	relay.Negentropy = true
	relay.StoreEvent = append(relay.StoreEvent, store.SaveEvent)
	relay.QueryEvents = append(relay.QueryEvents, store.QueryEvents)
	relay.DeleteEvent = append(relay.DeleteEvent, store.DeleteEvent)
	relay.ReplaceEvent = append(relay.ReplaceEvent, store.ReplaceEvent)
	relay.RejectFilter = append(relay.RejectFilter, func(ctx context.Context, filter nostr.Filter) (bool, string) {
		isPrivate := slices.Contains(filter.Kinds, 4) || slices.Contains(filter.Kinds, 1059)
		return isPrivate && khatru.GetAuthed(ctx) == "", "auth-required: private messages are for who they are addressed to"
	})
	log.Fatal(http.ListenAndServe(os.Args[1], relay))
}
