alter table sessions add column key_thumbprint blob
