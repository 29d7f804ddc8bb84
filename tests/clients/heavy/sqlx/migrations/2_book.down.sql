drop table book; drop type mood;
