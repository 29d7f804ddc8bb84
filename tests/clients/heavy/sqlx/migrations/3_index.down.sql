-- no-transaction
drop index concurrently book_title;
