create type mood as enum ('good', 'bad');
create table book (
  id bigint generated always as identity primary key,
  author int not null references author on delete cascade,
  title text not null,
  mood mood not null default 'good',
  price numeric(8, 2) not null default 0 check (price >= 0)
);
do $$ begin
  insert into author(name) values ('from a block; of several statements');
end $$;
